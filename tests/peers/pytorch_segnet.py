"""SegNet and SegNet-Basic in PyTorch, for comparisons with our TensorFlow networks.

The comparisons are of logits, speed and memory. `benchmark.py --peer pytorch` runs this file, which needs only PyTorch
and NumPy. The layers have the same names as in segnet.py, so that a PyTorch network can load the weights of a
TensorFlow network.
"""
import contextlib
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

WARM_UP = 3  # number of untimed runs, as in benchmark.py
ENCODER = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
EPSILON = 1.001e-5  # equals utils.BN_EPSILON


class ConvBN(nn.Sequential):
    """A convolution with batch norm. If `relu` is True, a ReLU follows."""

    def __init__(self, channels, filters, size, relu):
        layers = [nn.Conv2d(channels, filters, size, padding=size // 2), nn.BatchNorm2d(filters, EPSILON)]
        super().__init__(*layers + [nn.ReLU(inplace=True)] * relu)


class EncoderDecoder(nn.Module):
    """Maps BGR images [batch, 3, h, w] with values 0..255 to logits [batch, num_classes, h, w].

    `encoders` and `decoders` list the layer names of each level. The last layer is the classifier.
    """

    def forward(self, x):
        layers, pooled = dict(self.named_children()), []
        for names in self.encoders:
            for name in names:
                x = layers[name](x)
            size = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        for names in self.decoders:
            indices, size = pooled.pop()
            x = F.max_unpool2d(x, indices, 2, 2, output_size=size)
            del indices
            for name in names:
                x = layers[name](x)
        return x


class SegNet(EncoderDecoder):
    """SegNet: 13 encoder convolutions, as in VGG16, and 13 decoder convolutions."""

    def __init__(self, num_classes):
        super().__init__()
        levels = range(1, len(ENCODER) + 1)
        self.encoders = [['conv%d_%d' % (level, i + 1) for i in range(ENCODER[level - 1][1])] for level in levels]
        self.decoders = [[name + '_D' for name in names[::-1]] for names in self.encoders[::-1]]
        filters = [filters for filters, convolutions in ENCODER for _ in range(convolutions)]
        channels = [3] + filters[:-1]  # input channels of the encoder layers, output channels of the decoder layers
        for name, before, after in zip(sum(self.encoders, []), channels, filters):
            self.add_module(name, ConvBN(before, after, 3, True))
            self.add_module(name + '_D', ConvBN(after, before, 3, True))
        self.conv1_1_D = nn.Conv2d(64, num_classes, 3, padding=1)


class SegNetBasic(EncoderDecoder):
    """SegNet-Basic: four 7x7 encoder convolutions, four 7x7 decoder convolutions, a 1x1 classifier.

    The decoder has no ReLU.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.encoders = [['conv%d' % level] for level in range(1, 5)]
        self.decoders = [['conv_decode%d' % level] for level in (4, 3, 2)] + [['conv_decode1', 'conv_classifier']]
        for level in range(1, 5):
            self.add_module('conv%d' % level, ConvBN(3 if level == 1 else 64, 64, 7, True))
            self.add_module('conv_decode%d' % level, ConvBN(64, 64, 7, False))
        self.conv_classifier = nn.Conv2d(64, num_classes, 1)

    def forward(self, x):
        return super().forward(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0))


NETWORKS = {'segnet': SegNet, 'segnet-basic': SegNetBasic}


def load(network, values):
    """Copies weights to a network; `values` has the names and shapes of a run's weights.npz.

    Example: `values` is {'conv1_1/weights': float32 [3, 3, 3, 64], 'conv1_1/biases': float32 [64]}.
    """
    kinds = {'weights': '0.weight', 'biases': '0.bias', 'gamma': '1.weight', 'beta': '1.bias',
             'moving_mean': '1.running_mean', 'moving_variance': '1.running_var'}
    state = network.state_dict()
    for name, value in values.items():
        layer, kind = name.split('/')
        value = torch.from_numpy(value)
        key = '%s.%s' % (layer.replace('_bn', ''), kinds[kind])
        key = key if key in state else key.replace('.0.', '.')  # the classifier has no batch norm
        state[key] = value.permute(3, 2, 0, 1) if kind == 'weights' else value
    network.load_state_dict(state)


def folded(network):
    """Folds batch norm into the convolutions of a network; returns the network."""
    for layer in network.children():
        if isinstance(layer, ConvBN):
            layer[0] = nn.utils.fusion.fuse_conv_bn_eval(layer[0], layer[1])
            layer[1] = nn.Identity()
    return network


def synchronize(device):
    """Waits until a GPU has finished all operations."""
    if device == 'cuda':
        torch.cuda.synchronize()


def step(model, height, width, batch_size, num_classes, training, precision, device, compiled):
    """Returns a function without arguments that trains one step or predicts ids, on constant data."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')  # allows TF32 on a GPU, as TensorFlow does by default
    images = torch.randint(0, 256, (batch_size, 3, height, width)).float().to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, num_classes, (batch_size, height, width)).to(device)
    network = NETWORKS[model](num_classes).to(device, memory_format=torch.channels_last)
    cast = contextlib.nullcontext() if precision == 'float32' else torch.autocast(device, getattr(torch, precision))
    network = network.train() if training else folded(network.eval())
    run_network = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, 0.9, weight_decay=5e-4)
    class_weights = torch.ones(num_classes, device=device)

    def train():
        with cast:
            logits = run_network(images)
            loss = F.cross_entropy(logits.float(), labels, class_weights, ignore_index=255)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)

    def predict():
        with torch.inference_mode(), cast:
            run_network(images).argmax(1)
        synchronize(device)

    return train if training else predict


def peak_memory():
    """Returns the peak memory of this process in bytes."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))


def measure(repeats, device, **settings):
    """Returns the seconds of each timed run and the peak memory in bytes, as `benchmark.measure` does."""
    device = 'cuda' if device != 'cpu' and torch.cuda.is_available() else 'cpu'
    before = peak_memory()
    run = step(num_classes=11, device=device, **settings)
    seconds = []
    for _ in range(WARM_UP + repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() if device == 'cuda' else peak_memory() - before
    return {'seconds': seconds[WARM_UP:], 'memory': memory}


if __name__ == '__main__':
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
