"""`CurationStage`: a stage of the graph, written in YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from factory_lib.environment import environment
from factory_lib.errors import InvalidName
from factory_lib.names import check_dataset_name
from factory_lib.orchestration.checks.synced import DEFAULT_STALE_HOURS
from factory_lib.orchestration.checks.volume import USUAL, Volume
from factory_lib.orchestration.components.body import YamlBody
from factory_lib.orchestration.components.known import assets_of_others
from factory_lib.orchestration.components.names import Named, at_places, refuse_unknown
from factory_lib.orchestration.components.places import Place, located, refuse_unmade
from factory_lib.orchestration.components.steps import YamlStep, keep_is_last
from factory_lib.orchestration.stage import stage
from factory_lib.signals.given import GivenFile

if TYPE_CHECKING:
    from dagster_shared.yaml_utils.source_position import SourcePositionTree

SHARDS = "shards"
"""Name of the partitions of the graph, one a shard."""


class VolumeBounds(Named):
    """How far the size of a version may be from that of those before, see `Volume`."""

    yellow: float = USUAL.yellow
    red: float = USUAL.red
    least: int = USUAL.least
    may_be_empty: bool = USUAL.may_be_empty


class Condition(BaseModel):
    """Whether the graph has a stage, which is asked first: what is not set may be named in its other attributes.

    Attributes:
        only_with: variables of the environment: while one is not set, the graph is without the stage.
    """

    only_with: list[str] = []

    @property
    def is_met(self) -> bool:
        """Whether all are set."""
        return all(environment().get(name) for name in self.only_with)


class StageAttributes(Named, Condition):
    """A stage: dataset in, steps, dataset out.

    Attributes:
        dataset: the dataset that it makes, which is the name of its asset.
        of: the dataset that its samples are; or `source`, or `file`.
        source: the asset that stands for the source of shards, whose samples are ingested; instead of `of`.
        file: path or URI of one file, whose rows are read again when it changes; instead of `of`.
        steps: what is done with them, in order.
        by_shard: whether a row depends on rows of its own shard alone: the stage then runs for the shards that changed.
        description: what the UI and the docs show.
        group, kinds, owners, automatic, stays, volume, stale_hours: as in `stage`.
        elsewhere: datasets that another code location makes.
    """

    dataset: str
    of: str | None = None
    source: str | None = None
    file: str | None = None
    steps: list[YamlStep] = []
    by_shard: bool = False
    description: str = ""
    group: str = "curation"
    kinds: list[str] = []
    owners: list[str] = ["team:curation"]
    automatic: bool = True
    stays: bool = False
    volume: VolumeBounds = VolumeBounds()
    stale_hours: float = Field(default=DEFAULT_STALE_HOURS, gt=0)
    elsewhere: list[str] = []

    @field_validator("dataset")
    @classmethod
    def _may_be_a_name(cls, name: str) -> str:
        try:
            check_dataset_name(name)
        except InvalidName as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("group", "kinds", "owners")
    @classmethod
    def _dagster_takes_it(cls, value: Any, field: ValidationInfo) -> Any:
        argument = {"group": "group_name"}.get(str(field.field_name), str(field.field_name))
        try:
            dg.asset(name="stage", **{argument: value})(lambda: None)
        except dg.DagsterInvalidDefinitionError as error:
            raise ValueError(str(error).replace(" for asset 'AssetKey(['stage'])'", "")) from None
        return value

    @field_validator("steps")
    @classmethod
    def _keep_is_last(cls, steps: list[YamlStep]) -> list[YamlStep]:
        return keep_is_last(steps)

    @model_validator(mode="after")
    def _reads_others(self) -> StageAttributes:
        own = {place: "a stage cannot read what it makes." for place, name in self.read if name == self.dataset}
        if own:
            raise at_places("StageAttributes", own)
        return self

    @model_validator(mode="after")
    def _has_samples(self) -> StageAttributes:
        if [self.of, self.source, self.file].count(None) != 2:
            raise ValueError(
                "a stage has the samples of one dataset (of: …), or ingests those of a source (source: …) or of a file"
                " (file: …)."
            )
        if self.by_shard and (self.file or any(step.needs for step in self.steps)):
            raise ValueError("a file, and what samples have (needs: …), is known of the whole: no by_shard.")
        if self.source and not self.by_shard:
            raise ValueError("a source is ingested shard by shard: by_shard: true.")
        if self.by_shard and self.steps and self.steps[-1].keep:
            raise ValueError("what a filter can judge depends on the whole pool: a stage with keep is not by_shard.")
        return self

    @property
    def read(self) -> list[tuple[Place, str]]:
        """Places in the attributes and the datasets that are read there, that of the samples first."""
        begin: list[tuple[Place, str | None]] = [(("of",), self.of), (("source",), self.source)]
        named = [(place, name) for place, name in begin if name]
        return named + [(("steps", n, s.verb), name) for n, s in enumerate(self.steps) for name in s.datasets]

    @property
    def datasets(self) -> list[str]:
        """The datasets that it reads, that of its samples first."""
        return list(dict.fromkeys(name for place, name in self.read if place != ("source",)))


class Unchecked(BaseModel):
    """Attributes as YAML has them, with the schema of those of a stage."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The schema of `StageAttributes`."""
        return StageAttributes.model_json_schema(*args, **kwargs)


class CurationStage(dg.Component):
    """A stage of the graph without Python: dataset in; signals, expressions, functions, filters; dataset out."""

    def __init__(self, attributes: StageAttributes | None, position: SourcePositionTree | None = None) -> None:
        self.attributes, self._position = attributes, position

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of its attributes, for editors and `dg check yaml`; `load` checks them."""
        return Unchecked

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> CurationStage:
        """The component of what YAML says.

        Raises:
            QueryError: it cannot be; file, line and column are told, and the nearest of names.
        """
        written = context.resolution_context.at_path("attributes")
        position = written.source_position_tree
        given = written.resolve_value(attributes.model_dump() if attributes else {})
        try:
            refuse_unknown(given, StageAttributes.model_fields, "StageAttributes")
            if Condition.model_validate(given).is_met:
                return cls(StageAttributes.model_validate(given), position)
        except ValidationError as error:
            raise located(error, position) from None
        return cls(None, position)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset of the stage.

        Raises:
            QueryError: it reads a dataset that nothing makes.
        """
        tree, given = context.component_tree, self.attributes
        if given is None:
            return dg.Definitions()
        others = {one: one.attributes for one in tree.get_all_components(of_type=CurationStage)}
        every = {one: found for one, found in others.items() if found is not None}
        made = {found.dataset for found in every.values()} | assets_of_others(tree, CurationStage)
        refuse_unmade(given.read, {*made, *given.elsewhere}, self._position)
        # what several stages say that it is elsewhere is declared by the first of them
        first = {name: one for one, found in reversed(every.items()) for name in found.elsewhere}
        outside = [dg.AssetSpec(name) for name in given.elsewhere if first[name] is self and name not in made]
        return dg.Definitions(assets=[asset_of(given), *outside])


def asset_of(given: StageAttributes) -> dg.AssetsDefinition:
    """The asset of a stage that is given as attributes."""
    decorate = stage(
        group=given.group,
        partitions=dg.DynamicPartitionsDefinition(name=SHARDS) if given.by_shard else None,
        deps=[given.source] if given.source else (),
        kinds=given.kinds,
        owners=given.owners,
        automatic=given.automatic,
        stays=given.stays,
        volume=Volume(**given.volume.model_dump(exclude_unset=True)),
        stale_hours=given.stale_hours,
    )
    begin = GivenFile(given.file) if given.file else given.of
    steps = [step.plain for step in given.steps]
    return decorate(YamlBody(given.dataset, begin, steps, given.datasets, given.description))
