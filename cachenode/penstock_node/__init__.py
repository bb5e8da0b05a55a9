"""The cache node, built on the library."""

import os

# numpy brings threads for linear algebra, one a processor, which spin as it is imported. A node
# only looks things up in arrays. Whoever sets it otherwise is heard.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
