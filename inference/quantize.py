"""Quantizes exports: convolutions to 8-bit integers, or the weights of convolutions to 16-bit floats.

Ops such as pooling, unpooling and the softmax still compute in float32, because with 8-bit integers in these ops the
predicted class of many pixels would change.
"""
import collections
import os
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

import batches
import data
import datasets
from system.files import UserError
from system.machine import NUM_CORES

NUM_IMAGES = 12  # number of training images for the calibration of int8, if --calibrate is not given
CONVOLUTIONS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'TRANSPOSE_CONV')  # names of TFLite's convolution ops

# kind: 'int8' or 'float16'.  images: list of uint8 [height, width, 3] for the calibration; empty for 'float16'.
Quantization = collections.namedtuple('Quantization', 'kind images')


def calibration_images(paths: list, config: dict, spec, size) -> list:
    """Reads the calibration images -> list of uint8 [height, width, 3], at the image size of the export.

    If the export takes images of any size, the calibration images have the training size. If the run was trained
    with --fit resize, the images are resized. If the run was trained with --fit crop, the centre of each image is cut
    out.

    Args:
      paths: list of image files. If the list is empty, NUM_IMAGES evenly spaced training images of the run are read.
      config: config.json of the run.
      spec: the run's `networks.Spec`.
      size: value of --export_size: (height, width), 'free' or None.
    Raises:
      UserError: an image cannot be read, or `paths` is empty and the run's data set is missing.
    """
    height, width = size if isinstance(size, tuple) else (spec.height, spec.width)
    if paths:
        images = (data.read_image(path, config.get('depth', 16)) for path in paths)
    else:
        try:
            dataset = datasets.open(config['flags']['dataset'], config['flags']['data_dir'], config)
            chosen = np.linspace(0, len(dataset.examples['train']) - 1, NUM_IMAGES).astype(int)
            images = [dataset.load('train', i)[0] for i in sorted(set(chosen))]
        except UserError as error:
            raise UserError("--quantize int8: the run's images cannot be read (%s); give --calibrate IMAGES" % error)
    if spec.fit == 'resize':
        return [batches.resize(image, height, width) for image in images]
    return [batches.window(image, (image.shape[0] - height) // 2, (image.shape[1] - width) // 2, height, width, 0)
            for image in images]


def to_tflite(converter, quantization: Quantization) -> bytes:
    """Runs a TFLiteConverter with weights in float16, or with convolutions in int8 -> bytes of the TFLite file."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization.kind == 'float16':
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()
    converter.representative_dataset = lambda: ({'images': image[None]} for image in quantization.images)
    # QuantizationDebugger can exclude ops from quantization. Without exclusions the converter also quantizes the masks
    # of unpooling, the softmax and the resize matrices. With these ops quantized, 82% of the pixels were assigned a
    # different class than in float32 (XNNPACK on AVX2).
    from tensorflow.lite.python import schema_py_generated
    others = [name for name in vars(schema_py_generated.BuiltinOperator)
              if not name.startswith('_') and name not in CONVOLUTIONS]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=others)
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
    return debugger.get_nondebug_quantized_model()


def to_onnx(model, quantization: Quantization):
    """Quantizes an onnx.ModelProto to `quantization.kind` -> onnx.ModelProto."""
    return onnx_float16(model) if quantization.kind == 'float16' else onnx_int8(model, quantization.images)


def onnx_float16(model):
    """Stores the weights of convolutions in float16, each with a Cast to float32 -> onnx.ModelProto.

    Programs that run the file evaluate each Cast once, when the file is loaded. The layers compute in float32, because
    float16 would overflow in the resize and in LRN.
    """
    from onnx import TensorProto, helper, numpy_helper  # an optional package, listed in requirements-export.txt
    graph = model.graph
    weights = {node.input[1] for node in graph.node if node.op_type in ('Conv', 'ConvTranspose')}
    for tensor in graph.initializer:
        if tensor.name in weights:
            graph.node.insert(0, helper.make_node('Cast', [tensor.name + '_16'], [tensor.name], to=TensorProto.FLOAT))
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name + '_16'))
    return model


def onnx_int8(model, images: list):
    """Quantizes the convolutions of an onnx.ModelProto with ONNX Runtime's tools -> onnx.ModelProto."""
    import onnx
    from onnxruntime import quantization as tools
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(tools.CalibrationDataReader):
        """Feeds the calibration images to ONNX Runtime one by one."""
        remaining = iter(images)

        def get_next(self):
            """Returns the next input, {name: array}, or None at the end."""
            return next(({'images': image[None]} for image in self.remaining), None)

    with tempfile.TemporaryDirectory() as folder:
        exported, optimized, quantized = [os.path.join(folder, name) for name in 'eoq']
        onnx.save(model, exported)
        quant_pre_process(exported, optimized, skip_symbolic_shape=True)
        first = next(node.name for node in onnx.load(optimized).graph.node if node.op_type == 'Conv')
        # reduce_range stores weights in 7 bits, because CPUs without VNNI add two products in 16 bits, and the sum of
        # two 8-bit products would overflow. The first convolution stays in float32, because int8 in this convolution
        # costs SegNet-Basic 0.7 points of mIoU. Each ReLU is quantized together with the convolution before the ReLU.
        tools.quantize_static(optimized, quantized, Images(), op_types_to_quantize=['Conv', 'Relu'], per_channel=True,
                              reduce_range=True, activation_type=tools.QuantType.QUInt8, nodes_to_exclude=[first])
        return onnx.load(quantized)


def open_onnx(path: str):
    """Opens an ONNX file in ONNX Runtime, on all cores; returns a function (image) -> ids."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_CORES
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda image: session.run(['ids'], {'images': image[None]})[0][0]


def open_tflite(path: str):
    """Opens a TFLite file in TensorFlow's interpreter, on all cores; returns a function (image) -> ids."""
    run = tf.lite.Interpreter(path, num_threads=NUM_CORES).get_signature_runner()
    return lambda image: run(images=image[None])['ids'][0]


def describe(path: str, quantization: Quantization, expected: list) -> str:
    """Describes a quantized file, for example as ', int8, 1.5 MB, 98.7% of the ids of 12 images as in float32'.

    `expected`: list of uint8 [height, width], the ids that the float32 network predicts for the calibration images.
    """
    text = ', %s, %.1f MB' % (quantization.kind, os.path.getsize(path) / 1e6)
    if not expected:
        return text
    predict = open_tflite(path) if path.endswith('.tflite') else open_onnx(path)
    equal = np.mean([predict(image) == ids for image, ids in zip(quantization.images, expected)])
    return text + ', %.1f%% of the ids of %d images as in float32' % (100 * equal, len(expected))
