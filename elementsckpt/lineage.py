import socket


def host():
    return socket.gethostname()


def commit():
    return None
