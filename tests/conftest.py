"""What all tests share: cheap compilation.

The tests compile some ten thousand small programs and run most of them once, so that compiling is
three quarters of their time. Code generation without its expensive passes halves that and changes
no mathematics; `JAX_DISABLE_MOST_OPTIMIZATIONS=0` runs them as a user's programs are compiled.
"""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
