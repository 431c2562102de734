"""Reads a .caffemodel of caffe-segnet without Caffe, from the wire format of protocol buffers.

All lengths in the file are checked. Field numbers come from caffe-segnet's caffe.proto.
"""
import functools
import operator

import numpy as np

from system.files import UserError, read_bytes

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


def varint(content, at: int):
    """Reads the varint (little-endian base-128 number) at position `at`; returns (value, position after it).

    Raises ValueError if the content ends inside the number, or if the number has more than 10 bytes.
    """
    value = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise ValueError('cut short')
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(content):
    """Parses a message of protocol buffers (memoryview); yields (field number, wire type, value) per field.

    The value of a varint is an int. The value of any other wire type is a memoryview of the bytes.
    Raises KeyError if a wire type is unknown, and ValueError if the message is cut short.
    """
    at = 0
    while at < len(content):
        key, at = varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(content, at)
        else:
            if kind == BYTES:
                size, at = varint(content, at)
            else:
                size = {FIXED32: 4, FIXED64: 8}[kind]
            if at + size > len(content):
                raise ValueError('cut short')
            value, at = content[at:at + size], at + size
        yield number, kind, value


def blob(content):
    """Parses a BlobProto message, a memoryview -> float32 array in the shape that the message states.

    The fields 1 to 4 are num, channels, height and width. Field 5 is data. Field 7 is shape, a BlobShape message that
    has the sizes in field 1. Raises ValueError or KeyError if the message is damaged, has more than 8 dimensions or a
    wrong number of values.
    """
    old = [None] * 4  # sizes in older files: num, channels, height, width
    shape = None
    parts = []
    for number, kind, value in fields(content):
        if 1 <= number <= 4 and kind == VARINT:
            old[number - 1] = value
        elif number == 5 and kind in (BYTES, FIXED32):  # BYTES holds all values, FIXED32 one value
            parts.append(np.frombuffer(value, '<f4'))
        elif number == 7 and kind == BYTES:
            shape = []
            for inner, inner_kind, dims in fields(value):
                at = 0
                while inner == 1 and inner_kind == BYTES and at < len(dims):
                    size, at = varint(dims, at)
                    shape.append(size)
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    shape = shape if shape is not None else [size for size in old if size is not None]
    if len(shape) > 8:
        raise ValueError('a blob of %d dimensions' % len(shape))
    if functools.reduce(operator.mul, shape, 1) != values.size:  # np.prod could overflow, Python's integers cannot
        raise ValueError('a blob of shape %s has %d values' % (shape, values.size))
    return values.reshape(shape)


def read_layers(path: str):
    """Reads the weights of a .caffemodel -> {layer name: list of float32 arrays}, in the order of the file.

    Layers without weights are left out. Raises UserError if the file is damaged or no layer has weights.
    """
    content = memoryview(read_bytes(path))
    blobs_of = {}
    try:
        for number, kind, layer in fields(content):
            if kind == BYTES and number in (100, 2):  # 100: LayerParameter; 2: V1LayerParameter of older files
                name_field, blobs_field = (1, 7) if number == 100 else (4, 6)
                name = ''
                blobs = []
                for inner, inner_kind, value in fields(layer):
                    if inner == name_field and inner_kind == BYTES:
                        name = bytes(value).decode('utf-8', 'replace')
                    elif inner == blobs_field and inner_kind == BYTES:
                        blobs.append(blob(value))
                if blobs:
                    blobs_of[name] = blobs
    except (ValueError, KeyError) as error:
        raise UserError('%s: not a .caffemodel, or damaged (%s)' % (path, error))
    if not blobs_of:
        raise UserError('%s: not a .caffemodel: no layer in it has weights' % path)
    return blobs_of
