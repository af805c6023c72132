"""Turns an existing workflow into a 4-step one with SUN, and back. Pure Python: no torch, no ComfyUI.

rules.json, rules.py       which nodes sample, which widgets they have, which values SUN needs
graph.py                   one view of a workflow, read by ui_format.py or api_format.py
model_line.py, models.py   what a sampler's MODEL comes through, and which adapter fits it; lines.py keeps both
samplers.py, changes.py    a sampler with its guider and schedule; how its settings change
speed_up.py                candidate.py, partners.py: which samplers; insertion.py, placement.py: where SUN goes in
restore.py, record.py      what was there before
check.py, findings.py      what the SUN nodes say, and the fix
plan.py                    the way in: a workflow and an action make a plan, and a converted copy
edits.py                   what a plan consists of; ui_edits.py and api_format.py apply it to files
png.py                     the workflows in pictures
words.py                   what messages say in the user's language
"""
