"""What people see: the status page, dashboards, alerts. Tools of Debian that are missing skip a test, but not in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(tool: str, package: str) -> pytest.MarkDecorator:
    """CI installs them (.ci/run): there a missing one is a failure."""
    missing = shutil.which(tool) is None and os.environ.get("CI") != "true"
    return pytest.mark.skipif(missing, reason=f"{tool} is not installed (Debian: apt-get install {package})")
