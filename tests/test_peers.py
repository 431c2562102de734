"""Compares the logits of the PyTorch networks in peers/ with the logits of our TensorFlow networks."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import networks

torch = pytest.importorskip('torch', reason='PyTorch is not installed; the project does not need it')
from peers import pytorch_segnet  # noqa: E402


@pytest.mark.parametrize('model', ['segnet', 'segnet-basic'])
@pytest.mark.parametrize('training', [False, True])
def test_logits_equal(sess, model, training):
    tf.set_random_seed(4)
    rng = np.random.RandomState(1)
    images = rng.randint(0, 256, (2, 77, 93, 3)).astype(np.float32)
    logits = networks.build(networks.Spec(model, 5), tf.constant(images), training)
    variables = tf.get_collection(tf.GraphKeys.MODEL_VARIABLES)
    sess.run(tf.global_variables_initializer())
    for variable in variables:
        if not variable.op.name.endswith('/weights'):
            variable.load(rng.uniform(0.5, 1.5, variable.shape.as_list()), sess)
    expected, values = sess.run([logits, variables])
    network = pytorch_segnet.NETWORKS[model](5)
    pytorch_segnet.load(network, {v.op.name.split('/', 1)[1]: value for v, value in zip(variables, values)})
    network = network.train() if training else pytorch_segnet.folded(network.eval())
    with torch.no_grad():
        got = network(torch.from_numpy(images[..., ::-1].transpose(0, 3, 1, 2).copy())).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
