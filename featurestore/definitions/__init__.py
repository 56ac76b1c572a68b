"""From a feature repo to frozen specs: authoring, registry reading, validation, comparison.

Only `authoring` and `repo` import Feast, and only when they are used; everything else works on registry bytes.
"""
