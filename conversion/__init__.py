"""Turns an existing workflow into a 4-step one with SUN, and back. Pure Python: no torch, no ComfyUI.

rules.json, rules.py       which nodes sample, which widgets they have, which values SUN needs
graph.py                   one view of a workflow, read by ui_format.py or api_format.py
model_line.py, models.py   what a sampler's MODEL comes through, and whether an adapter fits it
samplers.py, changes.py    a sampler with its guider and schedule; how its settings change
speed_up.py, restore.py, check.py    the three plans; plan.py chooses
edits.py                   what a plan consists of; ui_edits.py and api_format.py apply it to files
"""
