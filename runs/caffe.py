"""Reads a .caffemodel of caffe-segnet without Caffe, by parsing the protobuf wire format.

All lengths in the file are checked. Field numbers come from caffe-segnet's caffe.proto.
"""
import collections

import numpy as np

from system.files import UserError, read_bytes

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf wire types


def varint(content, at: int):
    """Reads the varint (little-endian base-128 number) at position `at` -> (value, position after the varint).

    Raises IndexError if the content ends inside the number, and ValueError if the number has more than 10 bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < 128:
            return value, at
    raise ValueError('a number of more than 10 bytes')


def fields(content) -> dict:
    """Parses a protobuf message -> {(field number, wire type): list of values}.

    `content` is a memoryview of the message. The value of a varint is an int. The value of any other wire type is a
    memoryview of the bytes. The list is empty for a field that the message lacks. Raises LookupError or ValueError if
    the message is damaged or cut short.
    """
    found = collections.defaultdict(list)
    at = 0
    while at < len(content):
        key, at = varint(content, at)
        kind = key & 7
        if kind == VARINT:
            value, at = varint(content, at)
        else:
            size, at = varint(content, at) if kind == BYTES else ({FIXED32: 4, FIXED64: 8}[kind], at)
            if at + size > len(content):
                raise ValueError('cut short')
            value, at = content[at:at + size], at + size
        found[key >> 3, kind].append(value)
    return found


def blob(content):
    """Parses a BlobProto message -> float32 array of the shape that the message states.

    `content` is a memoryview of the message. In older files the fields 1 to 4 are num, channels, height and width.
    Field 5 is data. Field 7 is shape, a BlobShape message that has the sizes in field 1. Raises LookupError, ValueError
    or OverflowError if the message is damaged, or if the number of values does not match the shape.
    """
    found = fields(content)
    # BYTES holds packed values, FIXED32 a single value.
    values = np.frombuffer(b''.join(found[5, BYTES] + found[5, FIXED32]), '<f4')
    shape = [found[number, VARINT][-1] for number in (1, 2, 3, 4) if found[number, VARINT]]
    for message in found[7, BYTES]:
        sizes = b''.join(fields(message)[1, BYTES])
        shape, at = [], 0
        while at < len(sizes):
            size, at = varint(sizes, at)
            shape.append(size)
    return values.reshape(shape)


def read_layers(path: str):
    """Reads the weights of a .caffemodel -> {layer name: list of float32 arrays}, in the order of the file.

    Layers without weights are left out. Raises UserError if the file is damaged or no layer has weights.
    """
    blobs_of = {}
    try:
        net = fields(memoryview(read_bytes(path)))
        # LayerParameter is field 100. V1LayerParameter, in older files, is field 2.
        for layers, name_field, blobs_field in ((net[100, BYTES], 1, 7), (net[2, BYTES], 4, 6)):
            for layer in map(fields, layers):
                blobs = [blob(value) for value in layer[blobs_field, BYTES]]
                if blobs:
                    blobs_of[b''.join(layer[name_field, BYTES]).decode('utf-8', 'replace')] = blobs
    except (LookupError, ValueError, OverflowError) as error:
        raise UserError('%s: not a .caffemodel, or damaged (%s)' % (path, error))
    if not blobs_of:
        raise UserError('%s: not a .caffemodel: no layer has weights' % path)
    return blobs_of
