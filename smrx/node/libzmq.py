"""Find the addresses of the functions of libzmq that pyzmq has loaded.

Owns nothing. Called by order_socket.py, which passes them to compiled code.
"""

import ctypes
import sys
from typing import Any

from zmq.backend import Socket

_FUNCTIONS = (
    "zmq_msg_recv", "zmq_msg_data", "zmq_msg_size", "zmq_msg_more", "zmq_msg_gets", "zmq_errno", "zmq_send",
)  # fmt: skip


def functions() -> dict[str, int] | None:
    """Return the address of each function, memmove and strlen included; None if pyzmq does not say where they are."""
    file = getattr(sys.modules.get(Socket.__module__), "__file__", None)
    try:
        # The symbols of an extension module are looked up in the libraries that it needs, too.
        library, libc = ctypes.CDLL(file), ctypes.CDLL(None)
        return {name: _address(library, name) for name in _FUNCTIONS} | {
            name: _address(libc, name) for name in ("memmove", "strlen")
        }
    except (OSError, AttributeError, TypeError):
        return None


def address_of(memory: "ctypes.Array[ctypes.c_char]") -> int:
    """Return where some memory is."""
    return ctypes.addressof(memory)


def new_message() -> "ctypes.Array[ctypes.c_char]":
    """Return the memory of an initialised zmq_msg_t: 64 bytes, which are opaque."""
    message = ctypes.create_string_buffer(64)
    library = ctypes.CDLL(sys.modules[Socket.__module__].__file__)
    library.zmq_msg_init(message)
    return message


def _address(library: Any, name: str) -> int:
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address
