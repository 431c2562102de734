"""Formats our scores beside the paper's scores; writes the tables of `experiments.py results`."""
import os
import shutil

import numpy as np
import scipy.stats

from paper import tables
from runs import report
from runs.folder import publish_config, read_config, read_scores, without_folders
from system.files import UserError, write_json

MEASURES = ('G', 'C', 'mIoU', 'BF')
NOTE = "Scores in percent, at the labels' own size, sorted by split and mIoU. Run a command at the revision of its row."


def mean_and_spread(fractions: list) -> str:
    """Formats the mean of fractions 0..1 in percent, such as '61.3'; two or more fractions give '61.3 +- 0.4'.

    The number after +- is the sample standard deviation. None values are left out. The result is '-' if all
    fractions are None.
    """
    values = [100 * fraction for fraction in fractions if fraction is not None]
    if not values:
        return '-'
    return '%.1f' % np.mean(values) + (' +- %.1f' % np.std(values, ddof=1) if len(values) > 1 else '')


def published_split(split: str) -> str:
    """Returns the paper's split, 'train' or 'test', whose scores stand beside our scores on `split`."""
    return 'train' if split == 'train' else 'test'


def score_columns(entries: list, published: dict, split: str):
    """Formats G, C, mIoU and BF on `split`, ours and the paper's, in percent -> {column: text}.

    Our score is the mean over the seeds. Several seeds also give a standard deviation, such as '61.3 +- 0.4'.

    Args:
      entries: list of {split: entry of metrics.json}, one per seed.
      published: {split: (G, C, mIoU, BF)} of the paper in percent, None where the paper gives no score.
    """
    columns = {}
    for name, value in zip(MEASURES, published.get(published_split(split), (None,) * 4)):
        columns['%s %s' % (split, name)] = mean_and_spread([entry[split][name] for entry in entries])
        columns['paper %s %s' % (published_split(split), name)] = report.decimal(value)
    return columns


def class_columns(entries: list, published: dict, split: str):
    """Formats the accuracy of each class, ours and the paper's, in percent -> {column: text}.

    A class NAME has the columns NAME (our accuracy) and 'paper NAME' (the paper's accuracy, '-' if the paper gives
    none). Our accuracy is the mean over the seeds. Several seeds also give a standard deviation.

    Args:
      entries: list of {split: entry of metrics.json}, one per seed.
      published: {class: the paper's accuracy in percent}. Classes may be missing.
    """
    columns = {}
    for i, name in enumerate(entries[0][split]['class_names']):
        columns[name] = mean_and_spread([entry[split]['accuracy'][i] for entry in entries])
        columns['paper ' + name] = report.decimal(published.get(name))
    return columns


def rank_correlation(rows: list, split: str) -> str:
    """Computes Spearman's rank correlation of our scores on `split` with the paper's -> a sentence, or ''.

    `rows` is a list of {column: text}. The sentence gives the correlation for each score, such as mIoU, for which at
    least three rows have both our value and the paper's. If there is no such score, the result is ''.
    """
    published = published_split(split)
    correlations = []
    for name in MEASURES:
        pairs = [(row['%s %s' % (split, name)].split()[0], row['paper %s %s' % (published, name)])
                 for row in rows if 'failed' not in row]
        pairs = [(float(ours), float(theirs)) for ours, theirs in pairs if '-' not in (ours, theirs)]
        if len(pairs) > 2:
            correlations.append('%s %.2f' % (name, scipy.stats.spearmanr(*zip(*pairs))[0]))
    sentence = " Rank correlation of the rows' order with the paper's %s column (1: the same order): %s."
    return sentence % (published, ', '.join(correlations)) if correlations else ''


def keep_sources(run_folder: str, output: str) -> str:
    """Copies the config, the scores and the figures of a run to a folder in `output` -> path of the folder.

    The figures are the loss curves and the confusion matrices. Local paths and images of the data set are left out. An
    earlier copy is overwritten. If `run_folder` is itself a copy that `keep_sources` made in `output`, nothing is
    copied. Raises UserError if `run_folder` lies in `output` but is not such a copy.
    """
    folder = os.path.join(output, os.path.basename(os.path.abspath(run_folder)))
    if os.path.abspath(folder) == os.path.abspath(run_folder):
        if 'seconds' not in read_config(folder):  # `publish_config` adds the key 'seconds' to each copy of a run
            raise UserError('--output %s: %s is the run itself; name another folder' % (output, run_folder))
        return folder
    os.makedirs(folder, exist_ok=True)
    publish_config(folder, run_folder, None)
    scores = read_scores(run_folder)
    for entry in scores.values():
        entry['command'] = without_folders(entry.get('command', ''))
    write_json(os.path.join(folder, 'metrics.json'), scores)
    for name in ('loss.png', 'confusion-val.png', 'confusion-test.png'):
        if os.path.exists(os.path.join(run_folder, name)):
            shutil.copyfile(os.path.join(run_folder, name), os.path.join(folder, name))
    return folder


def scored_entries(metrics: dict) -> list:
    """Lists the scores on test and val in metrics.json -> list of (split, settings, scores), test first.

    Validation scores from training are left out. `settings` is the text in parentheses that evaluate.py adds to
    the split, such as 'moving, 20 samples'. The text begins with the batch-norm statistics: 'population' or 'moving'.
    """
    entries = []
    for key in sorted(metrics):
        split, _, settings = key.rstrip(')').partition(' (')
        if split in ('test', 'val') and settings != 'while training':
            if not settings.startswith(('population', 'moving')):
                settings = 'population, ' + settings if settings else 'population'
            entries.append((split, settings, metrics[key]))
    return entries


def duration(seconds: float) -> str:
    """Formats a duration: less than an hour as '11 min', longer durations as '1.6 h'."""
    return '%.1f h' % (seconds / 3600) if seconds >= 3600 else '%.0f min' % (seconds / 60)


def result_rows(folder: str) -> list:
    """Formats the scores of a run as table rows -> list of {column: text}.

    Each row has the scores on one split, for one combination of the flags of evaluate.py. `folder` must be a copy of
    the run folder made by `keep_sources`, because `keep_sources` adds the training time to config.json.
    """
    config = read_config(folder)
    flags = config['flags']
    rows = []
    for split, settings, scores in scored_entries(read_scores(folder)):
        row = {'run': os.path.basename(os.path.abspath(folder)), 'network': flags['model'],
               'scored on': '%s, %d images' % (split, scores['images']), 'batch norm': settings}
        row.update((name, report.percent(scores[name])) for name in MEASURES)
        row['trained at'] = '%dx%d, %s' % (flags['height'], flags['width'], flags['precision'])
        row['steps'] = '%s of %d images' % (scores['step'], flags['batch_size'])
        row['training time'] = '%s on %s' % (duration(config['seconds']), config['invocations'][0]['device'])
        for name, separator in (('revision', ', '), ('command', '\n')):  # a resumed run has several commands
            row[name] = separator.join(dict.fromkeys(start[name] for start in config['invocations']))
        rows.append(row)
    return rows


def published_rows(dataset: str, model: str, class_weights: str) -> list:
    """Formats the paper's scores of a network as table rows -> list of {column: text}; may be empty."""
    return [{'run': 'the paper', 'network': model, 'scored on': 'test', 'batch norm': 'population',
             **{name: report.decimal(value) for name, value in zip(MEASURES, scores)}, 'trained at': where}
            for where, scores in tables.published_scores(dataset, model, class_weights)]


def by_score(row: dict) -> tuple:
    """Returns the sort key of a row {column: text}: test before val, highest mIoU first, the paper last."""
    return row['scored on'][:3] == 'val', -float(row['mIoU'].replace('-', '0')), row['run'] == 'the paper'


def write_results(run_folders: list, output: str, into: str = None):
    """Prints a table of runs for each data set, and writes the tables to files.

    The files are DATASET.md and DATASET.csv in `output`, beside a copy of each run. If `into` is given, the tables are
    also inserted into this Markdown file. Raises UserError if two runs have the same name, if a run has no scores, if a
    run folder in `output` is not a copy made by `keep_sources`, or if `into` lacks the marker lines that runs/report.py
    defines as BEGIN and END.
    """
    names = [os.path.basename(os.path.abspath(run_folder)) for run_folder in run_folders]
    if len(set(names)) < len(names):
        raise UserError('--runs: two run folders have the same name; rename a folder')
    for run_folder in run_folders:
        if not scored_entries(read_scores(run_folder)):
            raise UserError('%s: has no scores; run evaluate.py %s first' % (run_folder, run_folder))
    by_dataset = {}
    for run_folder in run_folders:
        folder = keep_sources(run_folder, output)
        flags = read_config(folder)['flags']
        rows = by_dataset.setdefault(flags['dataset'], [])
        published = published_rows(flags['dataset'], flags['model'], flags['class_weights'])
        rows += result_rows(folder) + [row for row in published if row not in rows]
    texts = [report.write_table(os.path.join(output, name), name, NOTE, sorted(rows, key=by_score))
             for name, rows in by_dataset.items()]
    print('\n'.join(texts))
    if into:
        report.insert_tables(into, texts)
