"""The layer table: known sums, and MACs by hand."""
import main
import networks


def test_segnet_table():
    layers = networks.network_layers(networks.Spec('segnet', 11))
    assert sum(layer.parameters for layer in layers) == 29449355
    by_name = {layer.name: layer for layer in layers}
    assert by_name['conv1_1'].macs == 360 * 480 * 3 * 64 * 9
    assert by_name['conv1_1'].parameters == 3 * 64 * 9 + 64 + 2 * 64
    assert by_name['pool4'].shape == (23, 30, 512) and by_name['upsample4'].shape == (45, 60, 512)
    assert layers[-1].name == 'conv1_1_D' and layers[-1].shape == (360, 480, 11)
    assert [layer.name for layer in layers].index('upsample5') == 18


def test_describe_needs_no_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main.describe(main.parse_args(['--describe', '--dataset', 'voc2012', '--model', 'segnet-basic', '--height', '45',
                                   '--width', '61']))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ['norm', 'normalization', '45x61x3', '0', '0']
    assert lines[-2].split() == ['conv_classifier', 'convolution', '45x61x21', '1,365', '3,689,280']
    assert lines[-1].split()[:2] == ['segnet-basic', '1,417,237'] and not list(tmp_path.iterdir())


def test_describe_knows_the_input(capsys):
    main.describe(main.parse_args(['--model', 'segnet-basic', '--input', 'raw', '--height', '9', '--width', '9']))
    assert 'normalization' not in capsys.readouterr().out
