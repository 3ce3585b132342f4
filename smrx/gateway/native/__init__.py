"""The native protocol of a gateway: SoupBinTCP over TCP or TLS, with the records of the exchange as data.

native_server.py is the server, packet_splitter.py its compiled part. docs/gateway.md describes the protocol.
"""
