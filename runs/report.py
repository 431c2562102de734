"""Writes tables as text, Markdown, CSV and HTML, and report.html of a run folder.

report.html is built from config.json, metrics.json and the figures of the folder, without scripts or links.
"""
import base64
import html
import os
import re
import string

import tabulate

from runs.folder import read_config, read_scores
from system.files import UserError, read_bytes, read_text, write_csv, write_text

BEGIN, END = '<!-- BEGIN: written by a command -->', '<!-- END -->'
PAGE = string.Template(read_text(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')))
FIGURES = (('loss.png', 'Loss and validation'), ('predictions.png', 'Predictions'), ('cell_types.png', 'Predictions'),
            ('extremes.png', 'Best and worst of validation'), ('confusion-val.png', 'Confusion, validation'),
            ('confusion-test.png', 'Confusion, test'))


def decimal(value) -> str:
    """Formats a number with one decimal, such as '61.3'; None becomes '-'."""
    return '-' if value is None else '%.1f' % value


def percent(value) -> str:
    """Formats a fraction 0..1 in percent with one decimal, such as '61.3'; None becomes '-'."""
    return decimal(None if value is None else 100 * value)


def plain_table(rows: list) -> str:
    """Formats rows of {column: text} as lines for a terminal. A missing cell is empty."""
    return tabulate.tabulate(rows, headers='keys', disable_numparse=True)


def markdown_table(rows: list) -> str:
    """Formats rows of {column: text} as a Markdown table; `|` and line breaks in cells are escaped."""
    escaped = [{name.replace('|', '\\|'): cell.replace('|', '\\|').replace('\n', '<br>') for name, cell in row.items()}
               for row in rows]
    return tabulate.tabulate(escaped, headers='keys', tablefmt='pipe', disable_numparse=True)


def write_table(path: str, title: str, note: str, rows: list) -> str:
    """Writes rows of {column: text} to `path`.md and `path`.csv; returns the text of the Markdown file.

    Only the Markdown file has the title and the note. In the Markdown file the column `command` becomes a list below
    the table, so that users can copy the commands. Above each command the list shows the first cell of the row.
    """
    cells = [{name: cell for name, cell in row.items() if name != 'command'} for row in rows]
    parts = ['# ' + title, note, markdown_table(cells)]
    commands = {}  # {command: first cell of the first row with the command}
    for row in rows:
        if 'command' in row:
            commands.setdefault(row['command'], next(iter(row.values())).replace('\n', ' '))
    if commands:
        parts.append('```\n%s\n```' % '\n'.join('# %s\n%s' % (name, command) for command, name in commands.items()))
    text = '\n\n'.join(parts) + '\n'
    write_text(path + '.md', text)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path + '.csv', [columns] + [[row.get(name, '') for name in columns] for row in rows])
    return text


def insert_tables(path: str, texts: list):
    """Inserts tables between the lines BEGIN and END of the Markdown file `path`, in place of the old text.

    The title of each table becomes a heading of the third level. Raises UserError unless the file has each of the lines
    BEGIN and END once, in this order.

    Args:
      texts: list of Markdown texts, each with a title and a table, as returned by `write_table`.
    """
    page = read_text(path)
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError('--into %s: needs the lines "%s" and, below, "%s", each once' % (path, BEGIN, END))
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    tables_text = '\n'.join(re.sub(r'\A# ', '### ', text) for text in texts)
    write_text(path, '%s%s\n\n%s\n%s%s' % (before, BEGIN, tables_text, END, after))


def html_table(head: list, rows: list) -> str:
    """Formats header cells and rows of cells as an HTML table. All cells are escaped."""
    table = tabulate.tabulate(rows, head, 'html', missingval='None', disable_numparse=True)
    return '<div class="wide">%s</div>' % table


def embedded_image(path: str) -> str:
    """Formats a PNG file as HTML: an img element that contains the bytes of the file."""
    content = base64.b64encode(read_bytes(path)).decode()
    return '<img alt="%s" src="data:image/png;base64,%s">' % (os.path.basename(path), content)


def scores_tables(metrics: dict, published: list, class_accuracies: dict) -> str:
    """Formats two HTML tables: our scores with the paper's scores below, then the scores of each class.

    Args:
      metrics: {split: entry of metrics.json}, not empty; the first entry has the class names.
      published: the paper's scores, a list of (text, scores). The text names the table and the settings. The scores
        are (G, C, mIoU, BF) in percent.
      class_accuracies: {class: the paper's accuracy in percent}; empty if the paper has none.
    """
    rows = [[split] + [percent(scores.get(name)) for name in ('G', 'C', 'mIoU', 'BF')]
            + [scores.get(name, '-') for name in ('bn', 'checkpoint', 'step')] for split, scores in metrics.items()]
    rows += [['the paper, test: ' + where, *map(decimal, values), '', '', ''] for where, values in published]
    head = ['class'] + ['%s, %s' % (split, name) for split in metrics for name in ('accuracy', 'IoU')]
    head += ['accuracy, the paper, test'] if class_accuracies else []
    class_rows = []
    for i, class_name in enumerate(next(iter(metrics.values()))['class_names']):
        row = [class_name] + [percent(scores[name][i]) for scores in metrics.values() for name in ('accuracy', 'IoU')]
        class_rows.append(row + ([str(class_accuracies.get(class_name, '-'))] if class_accuracies else []))
    scores_table = html_table(['in percent', 'G', 'C', 'mIoU', 'BF', 'batch norm', 'weights', 'step'], rows)
    return scores_table + html_table(head, class_rows)


def write(folder: str, published: list = (), class_accuracies: dict = None):
    """Writes report.html into the run folder `folder`, from the config, scores and figures in the folder.

    Args:
      published: the paper's scores, a list of (text, scores). The text names the table and the settings. The scores
        are (G, C, mIoU, BF) in percent.
      class_accuracies: {class: the paper's accuracy in percent}, or None.
    Raises:
      UserError: config.json or metrics.json is damaged.
    """
    config = read_config(folder)
    flags = config['flags']
    start = (config['invocations'] or [{}])[-1]
    metrics = read_scores(folder)
    sections = [('Scores', scores_tables(metrics, published, class_accuracies or {}))] if metrics else []
    figures = [(title, os.path.join(folder, name)) for name, title in FIGURES]
    sections += [(title, embedded_image(path)) for title, path in figures if os.path.exists(path)]
    commands = '\n'.join('%s    # revision %s, %s' % (entry.get('command'), entry.get('revision'), entry.get('started'))
                         for entry in config['invocations'])
    sections.append(('Commands', '<pre>%s</pre>' % html.escape(commands)))
    sections.append(('Flags', html_table(['flag', 'value'], sorted(flags.items()))))
    weights = zip(config['class_names'], config.get('class_weights', []))
    sections.append(('Classes', html_table(['class', 'weight'], [[name, '%.4f' % weight] for name, weight in weights])))
    summary = '%s at %sx%s, TensorFlow %s on %s' % (flags['dataset'], flags['height'], flags['width'],
                                                    start.get('tensorflow'), start.get('device'))
    write_text(os.path.join(folder, 'report.html'), PAGE.substitute(
        title=html.escape('%s on %s' % (flags['model'], flags['dataset'])), summary=html.escape(summary),
        sections='\n'.join('<h2>%s</h2>\n%s' % (html.escape(title), body) for title, body in sections)))
