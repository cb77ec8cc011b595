"""What tests of several packages share: components, faults, forgeries, other processes.

Child processes find it by `boxes.environment`, pytest by `pythonpath` in setup.cfg.
"""
