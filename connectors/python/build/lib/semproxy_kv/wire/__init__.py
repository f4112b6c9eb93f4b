"""Pages and cores as they are on the wire (docs/reference/wire-format.md): safetensors blobs, byte for byte those of the Go side."""

from .container import Tensor
from .cores import Cores
from .layout import fingerprint
from .page import Page
from .rope import Rope

__all__ = ["Cores", "Page", "Rope", "Tensor", "fingerprint"]
