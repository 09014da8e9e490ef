#!/usr/bin/python3
"""smb-opens.py SERVER SHARE USER PASSWORD NAME — a client opens the file NAME for itself alone, and another one tries to open it
too; prints what the second one got, and what it gets after the first one has closed it. In python3-samba, which Samba needs."""
import sys

from samba import NTSTATUSError, credentials
from samba.samba3 import libsmb_samba_internal as libsmb
from samba.samba3 import param

READ, WRITE, OPEN_IF = 0x1, 0x2, 0x3
server, share, user, password, name = sys.argv[1:]
settings = param.get_context()
settings.load("/dev/null")
account = credentials.Credentials()
account.guess(settings)
account.set_kerberos_state(credentials.DONT_USE_KERBEROS)
account.set_username(user)
account.set_password(password)


def client():
    return libsmb.Conn(server, share, lp=settings, creds=account)


def tried(connection):
    try:
        connection.close(connection.create(name, DesiredAccess=READ | WRITE, ShareAccess=0, CreateDisposition=OPEN_IF))
        return "opened"
    except NTSTATUSError as error:
        return error.args[1]


first, second = client(), client()
held = first.create(name, DesiredAccess=READ | WRITE, ShareAccess=0, CreateDisposition=OPEN_IF)
print(tried(second))
first.close(held)
print(tried(second))
