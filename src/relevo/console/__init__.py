"""The console's layout, styles and charts. The pages themselves are each concept's own ``pages.py``.

Pages are rendered here, work without JavaScript, and carry no inline style or script, so that the browser can be told
to accept none.
"""
