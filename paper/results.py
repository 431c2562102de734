"""Tables of trained and scored runs, made from the files of their folders alone: experiments.py results."""
import collections
import os
import re
import shutil

import data
from paper import tables as paper
from runtime import report
from runtime import run as runs
from data import UserError

MEASURES = ('G', 'C', 'mIoU', 'BF')
BEGIN, END = '<!-- results: written by experiments.py -->', '<!-- end of results -->'


def keep(run_folder, output):
    """What the results of a run are made of: its configuration, scores, curves; no picture of a data set."""
    place = os.path.join(output, os.path.basename(os.path.abspath(run_folder)))
    os.makedirs(place, exist_ok=True)
    if os.path.abspath(place) != os.path.abspath(run_folder):
        runs.publish_config(place, run_folder, None)
        for name in ('metrics.json', 'loss.png', 'confusion-val.png', 'confusion-test.png'):
            if os.path.exists(os.path.join(run_folder, name)):
                shutil.copy(os.path.join(run_folder, name), place)
    return place


def result_rows(place):
    """A row for each split that a run was scored on -> a list of {column: text}."""
    config, scored = runs.read_config(place), runs.read_scores(place)
    flags, found = config['flags'], []
    theirs = paper.rows(flags['dataset'], flags['model'], flags['class_weights'])
    for split in [split for split in ('val', 'test') if split in scored]:
        scores = scored[split]
        columns = collections.OrderedDict([
            ('network', flags['model']), ('scored on', '%s, %d images' % (split, scores['images'])),
            ('trained at', '%dx%d, %s' % (flags['height'], flags['width'], flags['precision'])),
            ('steps', '%s of %d images' % (scores['step'], flags['batch_size']))])
        columns.update((name, report.percent(scores[name])) for name in MEASURES)
        if theirs:
            columns['the paper, test'] = ' / '.join('-' if value is None else '%.1f' % value for value in theirs[0][1])
        columns['hours'] = '%.1f on %s' % (config['seconds'] / 3600, config['starts'][0]['device'])
        for name, form in (('command', '`%s`'), ('revision', '%s')):  # each start's, where they differ
            columns[name] = ', then '.join(form % one for one in dict.fromkeys(s[name] for s in config['starts']))
        found.append(columns)
    return found


def write(run_folders, output, into):
    """Tables of trained and scored runs, one a data set, in `output`, and between two marks of the file `into`."""
    names = [os.path.basename(os.path.abspath(run_folder)) for run_folder in run_folders]
    if len(set(names)) < len(names):
        raise UserError('--runs: two of them have one name; rename a folder')
    by_dataset = collections.OrderedDict()
    for run_folder in run_folders:
        place = keep(run_folder, output)
        by_dataset.setdefault(runs.read_config(place)['flags']['dataset'], []).extend(result_rows(place))
    note = 'In percent, at the labels\' own size, batch norm by population statistics.'
    text = '\n'.join(report.write_table(os.path.join(output, name), name, note, found)
                     for name, found in by_dataset.items())
    print(text)
    if into:
        try:
            page = data.read_bytes(into).decode('utf-8')
        except UnicodeDecodeError as error:
            raise UserError('--into %s: not UTF-8 (%s)' % (into, error))
        if page.count(BEGIN) != 1 or page.count(END) != 1:
            raise UserError('--into %s: needs the lines "%s" and "%s", once each' % (into, BEGIN, END))
        runs.write_text(into, page.split(BEGIN)[0] + BEGIN + '\n\n' + re.sub('(?m)^# ', '#### ', text) + '\n' + END
                        + page.split(END)[1])
