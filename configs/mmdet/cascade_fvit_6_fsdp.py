_base_ = ['./cascade_fvit_6.py', '../_base_/fsdp.py']
