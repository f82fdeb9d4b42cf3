"""Processes of ours that stand still for a while."""

from __future__ import annotations

import os
import signal


def suspend(pid: int) -> None:
    """Stop a process of ours without ending it, and return when it stands still."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def resume(pid: int) -> None:
    """Let a suspended process go on."""
    os.kill(pid, signal.SIGCONT)
