"""The SDK: a blocking and an asyncio client with the same verbs, over one session state machine."""

from smrx.client.aio import AsyncClient
from smrx.client.blocking import Client
from smrx.client.errors import ClientError, InvalidValue, ProtocolError, Refused, Unavailable

__all__ = ["AsyncClient", "Client", "ClientError", "InvalidValue", "ProtocolError", "Refused", "Unavailable"]
