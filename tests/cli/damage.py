"""damage.py HOW DATA_MDB: change a store's file of records.

newer-format   the meta record says a later format, with a right checksum
newer-record   the meta record is of a later record version, with a right checksum
flip WORD      one bit of every place that holds WORD
The layout is that of store/record.h.
"""
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def meta_records(data):
    at = -1
    while (at := data.find(b"eR", at + 1)) >= 0:
        if len(data) < at + 25 or data[at + 16] != 4 or data[at + 17 : at + 21] != b"meta":
            continue
        end = at + 21 + struct.unpack_from("<I", data, at + 4)[0]
        if end + 4 <= len(data) and struct.unpack_from("<I", data, end)[0] == crc32c(data[at:end]):
            yield at, end


def main():
    how, path = sys.argv[1], sys.argv[2]
    with open(path, "rb") as file:
        data = bytearray(file.read())
    changed = 0
    if how == "flip":
        at = data.find(sys.argv[3].encode())
        while at >= 0:
            data[at] ^= 0x20
            changed += 1
            at = data.find(sys.argv[3].encode())
    else:
        for at, end in list(meta_records(data)):
            if how == "newer-format":
                struct.pack_into("<I", data, at + 21, 99)
            else:
                data[at + 3] = 99
            struct.pack_into("<I", data, end, crc32c(data[at:end]))
            changed += 1
    with open(path, "r+b") as file:
        file.write(data)
    return 0 if changed else 1


sys.exit(main())
