"""Checks of a dataset's files before a long run."""
from .annotations import CheckedAnnotations, check_annotations, check_coco, check_content
from .classes import check_class_folders, check_class_list
from .coco_files import wrong_ids
from .images import images_in_both
from .label_maps import CheckedLabelMaps, ReadSplit, check_label_maps, check_split, read_split
from .own import (
    annotation_problems,
    label_problems,
    print_annotations,
    print_label_maps,
    table_of_categories,
    table_of_labels,
)
from .problems import Problem, Run, is_note, print_problems, reading, short_name

__all__ = ['CheckedAnnotations', 'CheckedLabelMaps', 'Problem', 'ReadSplit', 'Run',
           'annotation_problems', 'check_annotations', 'check_class_folders', 'check_class_list',
           'check_coco', 'check_content', 'check_label_maps', 'check_split', 'images_in_both',
           'is_note', 'label_problems', 'print_annotations', 'print_label_maps', 'print_problems',
           'read_split', 'reading', 'short_name', 'table_of_categories', 'table_of_labels',
           'wrong_ids']
