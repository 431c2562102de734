"""Tests demo.py: the web page in Chromium, predicted ids, hostile uploads, files that visitors can read."""
import collections
import concurrent.futures
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
import types

import cv2
import numpy as np
import pytest
import requests
from conftest import ROOT, assert_refused, encoded, noise_video, png_bytes, put, random_image, write_camvid
from PIL import Image
from test_download import zipped
from test_main import train

import data
import demo
import predict
from inference.predictor import Prediction
from runs import plots
from system import cluster

needs_gradio = pytest.mark.skipif(not importlib.util.find_spec('gradio'), reason='Gradio is not installed')
no_browser = not (shutil.which('chromium') and shutil.which('chromedriver') and importlib.util.find_spec('selenium'))
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
         '--disable-background-networking', '--disable-component-update', '--disable-sync', '--window-size=1200,1000']
FILE = {'meta': {'_type': 'gradio.FileData'}}
CONFIG = {'class_names': ['sky', '<b>', 'road'], 'class_ids': [7, 0, 3], 'colors': [(1, 2, 3), (200, 0, 0), (0, 0, 90)]}


# ---------------------------------------------------------------- values shown on the web page

def label_image(prediction, path):
    fake = types.SimpleNamespace(predict=lambda images: [prediction for _ in images])
    return demo.label_image(fake, CONFIG, 10 ** 6, str(path))


def test_values_of_an_image(tmp_path):
    """The overlay has one mask for each predicted class, and each pixel is in exactly one mask.

    The legend shows the share of each class, and the id map holds the run's class ids.
    """
    ids = np.zeros((45, 61), np.uint8)
    ids[:9] = 2
    ids[9:12, :5] = 1
    confidence = np.arange(45 * 61).reshape(45, 61).astype(np.uint8)
    put('', str(tmp_path / 'street.png'), np.full((45, 61, 3), 9, np.uint8))
    prediction = Prediction(ids, confidence=confidence)
    (image, masks), colors, details, id_map = label_image(prediction, tmp_path / 'street.png')
    assert image.shape == (45, 61, 3) and [name for _, name in masks] == list(colors)
    np.testing.assert_array_equal([mask for mask, _ in masks], [ids == i for i in (0, 2, 1)])
    assert colors == {'sky 79.5%': '#010203', 'road 20.0%': '#00005a', '<b> 0.5%': '#c80000'}
    np.testing.assert_array_equal(details, confidence)
    assert os.path.basename(id_map) == 'street-ids.png'
    np.testing.assert_array_equal(data.read_label(id_map), np.array([7, 0, 3])[ids])


def test_a_large_image_is_shown_smaller(tmp_path):
    """The id map keeps the size of the image. A Bayesian run shows the uncertainty of each pixel."""
    ids = np.zeros((2048, 30), np.uint8)
    ids[1024:] = 1
    variance = np.random.RandomState(1).uniform(0, 0.2, ids.shape).astype(np.float32)
    put('', str(tmp_path / 'a.png'), np.zeros(ids.shape + (3,), np.uint8))
    (image, masks), _, details, id_map = label_image(Prediction(ids, variance), tmp_path / 'a.png')
    assert image.shape == details.shape == (1024, 15, 3) and masks[1][0][512:].all() and not masks[1][0][:512].any()
    assert abs(details.astype(int).mean() - plots.uncertainty(variance, 3).astype(int).mean()) < 1
    assert data.read_label(id_map).shape == ids.shape


def test_without_gradio(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.os, 'environ', dict(os.environ, GRADIO_ALLOWED_PATHS='/'))
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert_refused('pip install -r requirements-demo.txt', demo.import_gradio, str(tmp_path))
    assert 'GRADIO_ALLOWED_PATHS' not in os.environ


# ---------------------------------------------------------------- the server

class Server(collections.namedtuple('Server', 'url run folder process')):
    """A running demo.py.

    `folder` holds the home, working and temporary folders of the process, and the file 'terminal' with the output.
    """

    def get(self, path):
        return requests.get(self.url + '/' + path, timeout=60)

    def upload(self, name, content):
        return requests.post(self.url + '/gradio_api/upload', files={'files': (name, content)}, timeout=60)

    def call(self, function, *values):
        """Calls a function of the page; returns ('complete', results) or ('error', {'error': message})."""
        url = self.url + '/gradio_api/call/' + function
        event = requests.post(url, json={'data': list(values)}, timeout=60).json()['event_id']
        kind = None
        for line in requests.get(url + '/' + event, stream=True, timeout=120).iter_lines(decode_unicode=True):
            kind = line[7:] if line.startswith('event: ') else kind
            if line.startswith('data: ') and kind in ('complete', 'error'):
                return kind, json.loads(line[6:])

    def label(self, name, content, *values, function='show_image'):
        answer = self.upload(name, content)
        if not answer.ok:
            return 'upload', answer.text
        return self.call(function, dict(FILE, path=answer.json()[0]), *values)

    def ids(self, name, content):
        """Labels an image; returns the id map that the page offers for download."""
        kind, results = self.label(name, content)
        assert kind == 'complete', results
        return cv2.imdecode(np.frombuffer(requests.get(results[2]['url']).content, np.uint8), cv2.IMREAD_UNCHANGED)

    def files(self):
        """Lists all files below `folder` except temporary files."""
        return sorted(os.path.join(where, name) for where, _, names in os.walk(self.folder) for name in names
                      if os.sep + 'tmp' not in where)

    def terminal(self):
        return open(os.path.join(self.folder, 'terminal'), errors='replace').read()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """Runs demo.py with a SegNet-Basic that was trained for four steps at 23x31.

    SIGTERM must end demo.py, and the temporary files must be deleted.
    """
    folder = str(tmp_path_factory.mktemp('demo'))
    run = os.path.join(folder, 'r')
    train(write_camvid(folder + '/data', {'train': 4, 'val': 2}), run, '--steps', '4', '--optimizer', 'adam')
    address, = cluster.free_hosts(1)
    home, work, temporary = places = [os.path.join(folder, name) for name in ('home', 'work', 'tmp')]
    for place in places:
        os.makedirs(place)
    environment = dict(os.environ, HOME=home, TMPDIR=temporary, GRADIO_ALLOWED_PATHS='/', GRADIO_SHARE='True')
    command = [sys.executable, os.path.join(ROOT, 'demo.py'), run, '--port', address.split(':')[1]]
    with open(os.path.join(folder, 'terminal'), 'w') as terminal:
        process = subprocess.Popen(command, stdout=terminal, stderr=terminal, cwd=work, env=environment)
    server = Server('http://' + address, run, folder, process)
    deadline = time.time() + 300
    while server.url not in server.terminal():
        assert process.poll() is None and time.time() < deadline, server.terminal()
        time.sleep(0.1)
    yield server
    process.terminate()
    assert process.wait(60) == 0 and 'Traceback' not in server.terminal(), server.terminal()
    assert os.listdir(temporary) == []


def png(height=40, width=56, seed=1):
    """Returns the bytes of a PNG with random colours."""
    return cv2.imencode('.png', random_image(height, width, seed))[1].tobytes()


def expected_ids(server, content, tmp_path):
    """Returns the id map that predict.py writes for an image."""
    path = tmp_path / 'image.png'
    path.write_bytes(content)
    predict.predict(predict.parse_args([server.run, str(path), '--output', str(tmp_path / 'out'), '--overwrite']))
    return data.read_label(str(tmp_path / 'out' / 'image-ids.png'))


def black_png(side):
    """Returns a black PNG of side x side pixels with 1 bit per pixel: few bytes, many pixels."""
    return png_bytes(side, side, 1, bytes((1 + (side + 7) // 8) * side))


def hostile_images():
    """Returns a list of uploads as (file name, content, expectation).

    The expectation is True if the demo must label the image, and False if the demo must show an error. None means that
    the upload may fail, but an uploaded image must be labelled.
    """
    good, image = png(), Image.open(io.BytesIO(png()))
    jpeg, archive = encoded(image, 'JPEG'), zipped({'../../x.png': good})
    frames = {'save_all': True, 'append_images': [image.transpose(Image.FLIP_LEFT_RIGHT)] * 3}
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF orientation: rotated by 90 degrees
    svg = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY p SYSTEM "file:///etc/passwd">]><svg><text>&p;</text></svg>'
    page = b'<html><script>alert(1)</script></html>'
    refused = [('text.png', b'no image'), ('empty.png', b''), ('cut.jpg', jpeg[:len(jpeg) // 2]),
               ('cut.png', good[:len(good) // 2]), ('head.png', good[:30]), ('bomb.png', black_png(30000)),
               ('large.png', black_png(12000)), ('sum.png', good[:-20] + b'\0\0\0\0' + good[-16:]),
               ('bomb.gif', b'GIF89a\xff\xff\xff\xff\0\0\0' + encoded(image, 'GIF')[13:]), ('a.svg', svg),
               ('svg.png', svg), ('page.html', page), ('page.jpg', page), ('a.zip', archive), ('zip.png', archive),
               ('a.pdf', b'%PDF-1.4\n'), ('a.eps', b'%!PS-Adobe-3.0 EPSF-3.0\n'), ('a.npy', b'\x93NUMPY\x01\0'),
               ('float.tif', encoded(Image.new('F', (9, 7)), 'TIFF')), ('a.ico', encoded(image, 'ICO')),
               ('a.mp4', b'no video'), ('loop.tif', b'II*\0\x08\0\0\0\x01\0\0\1\3\0\1\0\0\0\1\0\0\0\x08\0\0\0')]
    labelled = [('moving.' + kind.lower(), encoded(image, kind, **frames)) for kind in ('GIF', 'WEBP', 'PNG')]
    labelled += [('1x1.png', png(1, 1)), ('thin.png', png(2, 2000)), ('turned.jpg', encoded(image, 'JPEG', exif=exif)),
                 ('cmyk.jpg', encoded(image.convert('CMYK'), 'JPEG')), ('a.png', encoded(image.convert('RGBA'), 'PNG')),
                 ('deep.png', encoded(Image.fromarray(np.full((9, 7), 40000, np.uint16)), 'PNG')), ('no-ending', good)]
    names = ['../../up.png', '/etc/up.png', '/root/.bashrc', '..', '.', 'a\0b.png', 'x' * 300 + '.png', '.png',
             '\u56f3 \u00fc.png', '-rf.png', 'con:aux|?*.png', '%2e%2e%2fup.png', '<img src=x onerror=alert(1)>.png',
             '$(touch up).png', 'a\r\nb: c.png', 'a.png/', '\\\\host\\up.png']
    files = [file + (False,) for file in refused] + [file + (True,) for file in labelled]
    return files + [(name, good, None) for name in names]


@needs_gradio
def test_hostile_images(server, tmp_path):
    """Each uploaded image is labelled, or the page shows a one-sentence error.

    The server keeps running and leaves no files except temporary files.
    """
    assert len(hostile_images()) > 40
    server.ids('first.png', png())
    before = server.files()
    for name, content, labelled in hostile_images():
        kind, result = server.label(name, content)
        if labelled is None and kind == 'upload':
            assert 'Traceback' not in result, name
        else:
            assert kind == ('error' if labelled is False else 'complete'), (name, result)
        if kind == 'error':
            assert result['error'] and not set(result['error']) & set('/<>\n'), (name, result)
    assert server.files() == before and 'Traceback' not in server.terminal(), server.terminal()
    good = png(45, 61, seed=2)
    np.testing.assert_array_equal(server.ids('good.png', good), expected_ids(server, good, tmp_path))


@needs_gradio
def test_videos(server, tmp_path):
    """The page returns an overlay of each frame.

    An uploaded playlist that refers to a file on the server is refused.
    """
    here = noise_video(str(tmp_path / 'a.avi'), 9).encode()
    good = (tmp_path / 'a.avi').read_bytes()
    kind, results = server.label('a.avi', good, 0.5, function='show_video')
    assert kind == 'complete', results
    (tmp_path / 'out.mp4').write_bytes(requests.get((results[0].get('video') or results[0])['url']).content)
    with predict.video.read_frames(str(tmp_path / 'out.mp4')) as (_, _, frames):
        assert [image.shape for image in frames] == [(48, 64, 3)] * 9
    playlist = b'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://%s\n#EXT-X-ENDLIST\n' % here
    for name, content in (('text.mp4', b'no video'), ('empty.mp4', b''), ('cut.avi', good[:3000]),
                          ('list.mp4', playlist), ('cat.mp4', b"ffconcat version 1.0\nfile '%s'\n" % here),
                          ('image.mp4', png()), ('bomb.mp4', black_png(30000)), ('page.webm', b'<html>')):
        kind, result = server.label(name, content, 0.5, function='show_video')
        assert kind == 'error' and result['error'] and '/' not in result['error'], (name, result)


@needs_gradio
def test_visitors_at_the_same_time_get_their_own(server, tmp_path):
    images = [png(40 + i, 56 + 2 * i, seed=i) for i in range(6)]
    noise_video(str(tmp_path / 'a.avi'), 9)
    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        other = pool.submit(server.label, 'a.avi', (tmp_path / 'a.avi').read_bytes(), 0.5, function='show_video')
        found = list(pool.map(lambda content: server.ids('same name.png', content), images))
    assert other.result()[0] == 'complete'
    for content, ids in zip(images, found):
        np.testing.assert_array_equal(ids, expected_ids(server, content, tmp_path))


@needs_gradio
def test_what_a_visitor_can_read(server):
    """A visitor cannot read files on the server's machine, or other websites through the server."""
    config = os.path.join(server.run, 'config.json')
    inside = os.path.join(server.folder, 'tmp', os.listdir(os.path.join(server.folder, 'tmp'))[0])
    for path in ('/etc/passwd', config, 'config.json', '../r/config.json', inside, inside + '/../../r/config.json',
                 inside + '/%2e%2e/%2e%2e/r/config.json', 'file://' + config, 'http://9.9.9.9/',
                 'https://huggingface.co/'):
        for route in ('file=', 'gradio_api/file=', 'gradio_api/file/', 'gradio_api/proxy=', 'static/', 'assets/'):
            answer = server.get(route + path)
            assert answer.status_code in (400, 403, 404), route + path
    kind, result = server.call('show_image', dict(FILE, path='https://huggingface.co/a.png'))
    assert kind == 'error' and 'upload it again' in result['error']
    for value in (dict(FILE, path='/etc/passwd'), dict(FILE, path=5), {'path': '/etc/passwd'}, 'text', 5, []):
        assert server.call('show_image', value)[0] == 'error', value
    assert server.call('example', 500)[0] == server.call('show_video', 5, 'x')[0] == 'error'
    assert server.label('a.mp4', b'no video', 'x', function='show_video')[0] == 'error'
    assert server.call('show_image', None) == ('complete', [None] * 3), 'no file: an empty page'
    assert 'Traceback' not in server.terminal(), server.terminal()
    assert server.get('config').json()['analytics_enabled'] is False


# ---------------------------------------------------------------- the page in a browser

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """Starts headless Chromium with a log of the console and of all requests."""
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for flag in FLAGS + ['--user-data-dir=' + str(tmp_path_factory.mktemp('browser'))]:
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    yield driver
    driver.quit()


@needs_gradio
@pytest.mark.skipif(no_browser, reason='chromium, chromedriver or selenium is not installed')
def test_page_in_a_browser(server, request, tmp_path):
    """The page shows masks and class names for an uploaded image, and an error for an uploaded text file.

    All requests of the browser go to the server.
    """
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait
    browser = request.getfixturevalue('browser')
    content = png(45, 61)
    (tmp_path / 'street.png').write_bytes(content)
    (tmp_path / 'text.png').write_text('no image')
    expected = expected_ids(server, content, tmp_path)
    class_names = predict.read_config(server.run)['class_names']

    def all_of(selector):
        return browser.find_elements('css selector', selector)

    def wait(condition):
        passing = [StaleElementReferenceException, IndexError]
        return WebDriverWait(browser, 90, ignored_exceptions=passing).until(lambda _: condition())

    def drop(name):
        wait(lambda: all_of('#upload input[type=file]'))[0].send_keys(str(tmp_path / name))

    browser.get(server.url)
    drop('street.png')
    names = [legend.text for legend in wait(lambda: all_of('#overlay .legend-item'))]
    counts = np.bincount(expected.ravel())
    order = [i for i in np.argsort(-counts) if counts[i]]
    assert names == ['%s %.1f%%' % (class_names[i], 100 * counts[i] / expected.size) for i in order] and len(names) > 1
    masks = all_of('#overlay .mask')
    for mask, i in zip(masks, order):
        alpha = np.array(Image.open(io.BytesIO(requests.get(mask.get_attribute('src')).content)))[:, :, 3]
        np.testing.assert_array_equal(alpha > 0, expected == i)
    wait(lambda: all_of('#details img'))

    box = all_of('#overlay .image-container')[0]
    flat = cv2.dilate(expected, np.ones((3, 3))) == cv2.erode(expected, np.ones((3, 3)))
    for i, name in [(i, name) for i, name in zip(order, names) if i in expected[flat]][:3]:
        y, x = np.argwhere(flat & (expected == i))[0]  # a pixel whose neighbours have the same class
        right, down = ((x + 0.5) / 61 - 0.5) * box.size['width'], ((y + 0.5) / 45 - 0.5) * box.size['height']
        ActionChains(browser).move_to_element_with_offset(box, int(right), int(down)).perform()
        wait(lambda name=name: box.get_attribute('data-name') == name)
    ActionChains(browser).move_to_element(all_of('#examples')[0]).perform()
    field = all_of('#opacity input[type=number]')[0]
    field.clear()
    field.send_keys('0.25\t')
    wait(lambda: masks[0].value_of_css_property('opacity') == '0.25')

    before = all_of('#overlay .base-image')[0].get_attribute('src')
    all_of('#examples img')[0].click()
    wait(lambda: all_of('#overlay .base-image')[0].get_attribute('src') != before)
    all_of('#upload button[aria-label="Clear"]')[0].click()
    drop('text.png')
    assert 'text.png: not an image' in wait(lambda: all_of('.toast-body'))[0].text
    wait(lambda: not all_of('#overlay .mask') and not all_of('#details img'))

    assert [line for line in browser.get_log('browser') if line['level'] == 'SEVERE'] == []
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    asked = [message['params']['request']['url'] for message in messages
             if message['method'] == 'Network.requestWillBeSent']
    # Chromium requests chrome: and chrome-untrusted: URLs for its new-tab page.
    ours = (server.url, 'data:', 'blob:', 'chrome:', 'chrome-untrusted:')
    assert len(asked) > 10 and [url for url in asked if not url.startswith(ours)] == []
