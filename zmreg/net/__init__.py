"""Ears and mouth: the only room that imports zmq."""
