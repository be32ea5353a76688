_base_ = ['./cascade_fvit_5.py', '../_base_/fsdp.py']
