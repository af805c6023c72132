"""Turns an existing workflow into a 4-step one with SUN, and back. Pure Python: no torch, no ComfyUI.

rules.json, rules.py       which nodes sample, which widgets they have, which values SUN needs
graph.py                   one view of a workflow, read by ui_format.py or api_format.py
model_line.py              what a MODEL runs through from its loader to a sampler
pack_samplers.py           samplers of other packs, recognized by their settings
samplers.py, changes.py    a sampler with its guider, schedule and partners; how its settings change
models.py                  which model a sampler has, and which adapter fits it
speed_up.py, insertion.py  which samplers are sped up; where SUN goes
negative.py                lets the negative prompt count at CFG 1 if negative_prompt.py finds that it does not
steps.py                   another number of steps behind SUN
restore.py, record.py      what was there before; notes.py for when the record was deleted with its node
left_behind.py             samplers that still have the settings of a SUN node that is off or gone
check.py, findings.py      what the SUN nodes show, and the fix; served.py: what the samplers behind them show
surroundings.py            what a workflow has around its SUN nodes
plain.py                   the same graph without SUN, to compare
plan.py                    the entry: a workflow and an action make a plan, and a converted copy
edits.py                   what a plan consists of; ui_edits.py and api_format.py apply it to files
png.py                     the workflows in pictures
finite_json.py             JSON that others wrote
words.py                   messages in the user's language
"""
