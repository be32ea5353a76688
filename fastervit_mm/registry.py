"""Scope ``fastervit_mm`` of mmengine's registries.

Bases named ``fastervit_mm::...`` have it. mmengine imports this module by its name for them.
"""
from typing import Optional

from mmengine.registry import DefaultScope, Registry

SCOPE = 'fastervit_mm'


class ScopeOfProgram(Registry):
    """Alias for the registry of the program's default scope.

    mmengine gives the parts of a base ``mmdet::...`` the scope ``mmdet``. A base of this package
    has parts of mmdet, mmseg or mmpretrain, of its own and of mmengine: all of them are found where
    the inheriting config finds its own parts.
    """

    def __init__(self, root: Registry):
        super().__init__(root.name, parent=root, scope=SCOPE, locations=[SCOPE])

    def _search_child(self, scope: str) -> Optional[Registry]:
        scopes = [instance.scope_name for instance in DefaultScope._instance_dict.values()
                  if instance.scope_name != self.scope]
        if scope != self.scope or not scopes:  # mmengine then takes the caller's registry
            return None
        with self.parent.switch_scope_and_registry(scopes[-1]) as registry:
            return registry
