"""From paths to missions: every layout of files and folders, imports, hashes, and what is wrong with them."""

from pathlib import Path

import pytest

from reqon.diagnostics import Source
from reqon.errors import ConfigurationError
from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications
from reqon.lang.loader import load, load_text
from reqon.lang.program import MissionProgram, Program
from tests.support.rights import bound_by_file_modes

ACTION = 'action Load { get "/x" store response -> rows }'


def mission(name: str, body: str = "") -> str:
    declared = f'source Api {{ base: "http://localhost:1" }} store rows: memory("rows") {body}'
    return f"mission {name} {{ {declared} {ACTION} run Load }}"


class Folder:
    """A folder of mission files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **files: str) -> "Folder":
        """Write files: `a__b` is `a/b.vague`."""
        for name, text in files.items():
            self.put(name.replace("__", "/") + ".vague", text)
        return self

    def put(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def load(self, *names: str) -> Program:
        return load([self.path / name for name in names] or [self.path])

    def one(self) -> MissionProgram:
        program = self.load()
        assert program.all_diagnostics == ()
        assert len(program.missions) == 1
        return program.missions[0]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "missions")


def codes(program: Program) -> list[str]:
    return [d.code for d in program.all_diagnostics]


def names(program: Program) -> list[str]:
    return [m.name for m in program.missions]


# --- files and collections -------------------------------------------------------------------------------------------


def test_a_file_may_hold_several_missions_in_order(folder: Folder) -> None:
    folder.write(two=mission("B") + "\n" + mission("A"))
    program = folder.load("two.vague")
    assert names(program) == ["B", "A"]
    assert len(program.units) == 1


def test_a_collection_is_visited_in_path_order_with_the_separator_first(folder: Folder) -> None:
    folder.write(b=mission("B"), a__z=mission("AZ"), deep__er__mission=mission("Deep"))
    folder.put("a.vague", mission("A"))
    folder.put("c.reqon", mission("C"))
    assert names(folder.load()) == ["AZ", "A", "B", "C", "Deep"]


def test_hidden_files_node_modules_and_the_data_folder_are_skipped(folder: Folder) -> None:
    folder.write(a=mission("A"), node_modules__x=mission("X"), state__y=mission("Y"))
    folder.put(".hidden.vague", mission("H"))
    folder.put(".git/z.vague", mission("Z"))
    folder.put("notes.txt", "not a mission")
    assert names(load([folder.path], skip=[folder.path / "state"])) == ["A"]


def test_a_library_contributes_nothing_and_is_no_error(folder: Folder) -> None:
    folder.write(a=mission("A"), shared__types="schema Bin { code: string }")
    program = folder.load()
    assert names(program) == ["A"]
    assert not program.has_errors


def test_no_mission_anywhere_is_an_error(folder: Folder) -> None:
    folder.write(types="schema Bin { code: string }")
    assert codes(folder.load()) == ["no-mission"]


def test_a_path_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist") as raised:
        load([tmp_path / "nothing.vague"])
    assert raised.value.exit_code == 3


def test_a_broken_file_hides_no_other(folder: Folder) -> None:
    folder.write(a=mission("A"), b="mission B { run }", c=mission("C"))
    program = folder.load()
    assert names(program) == ["A", "C"]
    assert [unit.path.name for unit in program.units if unit.errors] == ["b.vague"]


def test_two_missions_of_one_name_are_an_error_that_names_both_files(folder: Folder) -> None:
    folder.write(a=mission("Same"), b=mission("Same"))
    program = folder.load()
    (found,) = program.all_diagnostics
    assert found.code == "duplicate-mission"
    assert found.span is not None
    assert found.span.source.name.endswith("b.vague")
    assert "a.vague:1:9" in found.message


def test_files_are_named_as_the_path_was_given(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(a="mission A {")
    monkeypatch.chdir(folder.path.parent)
    (found,) = load([Path("missions")]).all_diagnostics[:1]
    assert str(found.span).startswith("missions/a.vague:1:")


def test_a_file_that_is_not_utf_8_is_an_error_of_its_unit(folder: Folder) -> None:
    folder.write(a=mission("A"))
    (folder.path / "b.vague").write_bytes(b"mission \xff")
    program = folder.load()
    assert names(program) == ["A"]
    assert codes(program) == ["bad-character"]


def test_a_byte_order_mark_is_no_part_of_the_text(folder: Folder) -> None:
    folder.write(a="\ufeff" + mission("A"))
    assert names(folder.load()) == ["A"]


def test_a_file_above_the_limit_is_refused_by_name(folder: Folder) -> None:
    folder.write(a="// " + "x" * 1024 * 1024)
    (found,) = folder.load().all_diagnostics
    assert "1048576 bytes" in found.message


def test_links_that_lead_back_are_not_followed_for_ever(folder: Folder) -> None:
    folder.write(sub__a=mission("A"))
    (folder.path / "sub" / "up").symlink_to(folder.path)
    assert names(folder.load()) == ["A"]


# --- mission folders -------------------------------------------------------------------------------------------------


def test_a_mission_folder_is_one_mission_of_all_its_files(folder: Folder) -> None:
    folder.put(
        "mission.vague",
        'mission Tide { source Api { base: "http://localhost:1" } store rows: memory("rows") run Fetch then Publish }',
    )
    folder.write(
        schemas__reading="schema Reading { id: string }",
        schemas__gauge__transform="transform ToReading -> Reading { id: .id }",
        actions__fetch='action Fetch { get "/x" apply ToReading to response as r store r -> rows }',
        actions__publish='action Publish { post "/y" { body: { limit: limit } } }',
        shared="let limit = 5",
    )
    found = folder.one()
    assert found.path == folder.path
    assert list(found.actions) == ["Fetch", "Publish"]
    assert list(found.schemas) == ["Reading"]
    assert list(found.lets) == ["limit"]
    assert found.files[0].name.endswith("mission.vague")


def test_parts_load_schemas_first_and_actions_last(folder: Folder) -> None:
    folder.put("mission.vague", mission("M"))
    folder.write(actions__a="let a = 1", zz="let z = 1", schemas__s="let s = 1", bb__c="let c = 1")
    assert list(folder.load().units[0].missions[0].lets) == ["s", "c", "z", "a"]


def test_a_subfolder_with_a_root_is_a_mission_of_its_own(folder: Folder) -> None:
    folder.put("outer/mission.vague", mission("Outer"))
    folder.put("outer/inner/mission.vague", mission("Inner"))
    folder.put("outer/inner/part.vague", "let inner = 1")
    program = load([folder.path])
    assert names(program) == ["Outer"]
    assert "inner" not in program.missions[0].lets


def test_two_roots_are_ambiguous(folder: Folder) -> None:
    folder.put("m/mission.vague", mission("A"))
    folder.put("m/mission.reqon", mission("B"))
    folder.put("other.vague", mission("C"))
    program = folder.load()
    assert codes(program) == ["ambiguous-root"]
    assert names(program) == ["C"]


def test_a_root_without_a_mission_or_with_two_is_an_error(folder: Folder) -> None:
    folder.put("none/mission.vague", "schema S { a: int }")
    folder.put("two/mission.vague", mission("A") + mission("B"))
    assert codes(folder.load()) == ["no-mission", "duplicate-mission"]


def test_only_the_root_may_define_a_mission(folder: Folder) -> None:
    folder.put("mission.vague", mission("M"))
    folder.write(part=mission("N"), other="run Load", third="schedule: every 5 minutes")
    assert set(codes(folder.load())) == {"mission-in-part"}
    assert len(codes(folder.load())) == 3


def test_a_duplicate_in_two_parts_names_both_places(folder: Folder) -> None:
    folder.put("mission.vague", mission("M"))
    folder.write(a="schema Bin { code: string }", b="schema Bin { code: int }")
    (found,) = folder.load().all_diagnostics
    assert found.code == "duplicate-schema"
    assert "a.vague:1:8" in found.message
    assert found.span is not None
    assert found.span.source.name.endswith("b.vague")


def test_the_root_replaces_a_schema_of_a_part_with_a_warning(folder: Folder) -> None:
    folder.put("mission.vague", mission("M", "schema Bin { code: int }"))
    folder.write(types="schema Bin { code: string }", more="action Load { skip }")
    program = folder.load()
    assert sorted(codes(program)) == ["duplicate-action", "shadowed-part"]
    message = next(d.message for d in program.all_diagnostics if d.code == "shadowed-part")
    assert message == "schema 'Bin' in types.vague is replaced by mission.vague:1"


def test_the_default_source_is_the_first_of_the_root_or_of_the_first_part_that_has_one(folder: Folder) -> None:
    folder.put("mission.vague", "mission M { run A }")
    folder.write(
        schemas__a='source First { base: "http://localhost:1" }',
        b='source Second { base: "http://localhost:2" }',
        actions__c='action A { get "/x" }',
    )
    assert next(iter(folder.one().sources)) == "First"


# --- shared declarations and imports ---------------------------------------------------------------------------------


def test_declarations_of_a_file_are_seen_by_its_missions_and_hidden_by_theirs(folder: Folder) -> None:
    folder.write(
        a='let limit = 1\nstore rows: memory("shared")\n'
        'mission A { source S { base: "http://localhost:1" } let limit = 2\n'
        'action X { get "/x" store { id: limit } -> rows } run X }\n'
        "mission B { action Y { store { id: limit } -> rows } run Y }"
    )
    program = folder.load()
    assert program.all_diagnostics == ()
    a, b = program.missions
    assert a.lets["limit"].value.value == 2  # type: ignore[union-attr]
    assert b.lets["limit"].value.value == 1  # type: ignore[union-attr]
    assert a.stores["rows"] is b.stores["rows"]


def test_an_unqualified_import_adds_declarations_and_a_local_one_wins(folder: Folder) -> None:
    folder.write(
        lib__units="schema Bin { code: string }\naction Clean { clear rows }\nlet limit = 1\nlet other = limit",
        m__a='import "../lib/units"\n'
        + mission("A", "let limit = 3 action Go { run Clean }").replace(
            "run Load }", "run Go then Load if limit > other }"
        ),
    )
    program = folder.load("m")
    assert codes(program) == []
    found = program.missions[0]
    assert "Clean" in found.actions
    assert found.lets["limit"].value.value == 3  # type: ignore[union-attr]


def test_a_named_import_qualifies_schemas_transforms_and_actions(folder: Folder) -> None:
    folder.write(
        lib="schema Base { id: string }\nschema Bin { ...Base, kind: string }\n"
        'transform ToBin: Base -> Bin { id: .id, kind: "x" }\naction Again { jump Other }\naction Other { skip }',
    )
    folder.put(
        "m.vague",
        'import u from "lib.vague"\n'
        'mission M { source S { base: "http://localhost:1" } store rows: memory("r") action A { get "/x" '
        "match response { u.Bin -> continue, u.Base -> jump u.Again, _ -> continue } "
        "apply u.ToBin to response as b store b -> rows } run A }",
    )
    program = folder.load("m.vague")
    assert codes(program) == []
    found = program.missions[0]
    assert set(found.schemas) == {"u.Base", "u.Bin"}
    assert found.schemas["u.Bin"].fields[0].base.text == "u.Base"  # type: ignore[union-attr]


def test_a_name_that_an_import_lacks_is_undefined(folder: Folder) -> None:
    folder.write(lib="schema Bin { id: string }")
    folder.put(
        "m.vague",
        'import u from "lib"\n' + mission("M", "action B { match rows { u.Bon -> skip, _ -> skip } jump u.Go }"),
    )
    assert [code for code in codes(folder.load("m.vague")) if code.startswith("undefined")] == [
        "undefined-schema",
        "undefined-action",
    ]


def test_a_folder_import_takes_its_libraries_only(folder: Folder) -> None:
    folder.write(
        lib__a="schema A { id: string }",
        lib__deep__b="schema B { id: int }",
        lib__m=mission("Inside"),
    )
    folder.put(
        "m.vague", 'import "lib"\n' + mission("M", "action X { match rows { A -> skip, B -> skip, _ -> skip } }")
    )
    assert codes(folder.load("m.vague")) == ["unused-action"]


def test_imports_that_are_not_found_clash_or_go_in_circles_are_errors(folder: Folder) -> None:
    folder.write(
        one="schema Bin { id: string }",
        two="schema Bin { id: int }",
        a='import "b"\nschema A { id: string }',
        b='import "a"',
    )
    folder.put("lost.vague", 'import "shared/units.vague"\n' + mission("Lost"))
    folder.put("clash.vague", 'import "one"\nimport "two"\n' + mission("Clash"))
    folder.put("own.vague", 'import "one"\nimport "two"\nschema Bin { id: string }\n' + mission("Own"))
    folder.put("ring.vague", 'import "a"\n' + mission("Ring"))
    assert codes(folder.load("lost.vague")) == ["import-not-found"]
    assert codes(folder.load("clash.vague")) == ["import-clash"]
    assert codes(folder.load("own.vague")) == []
    assert codes(folder.load("ring.vague")) == ["import-cycle"]


@pytest.mark.parametrize("text", ['import "{}"', 'import "{}.vague"', 'import tide from "{}.yaml"'])
def test_a_name_that_no_file_can_have_is_not_found(text: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("m.vague", text.format("x" * 300) + "\n" + mission("M"))
    program = load([tmp_path / "m.vague"], known=registered(Specifications))
    assert [d.code for d in program.all_diagnostics if d.severity == "error"] == ["import-not-found"]


def test_a_folder_that_cannot_be_looked_through_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`import "/"` means the whole disk: that ends as a finding too, and soon."""
    folder = Folder(tmp_path)
    folder.put("m.vague", 'import "parts"\n' + mission("M"))
    for n in range(30):
        folder.put(f"parts/inner/p{n}.vague", f"schema S{n} {{ id: string }}")
    assert codes(folder.load("m.vague")) == []
    monkeypatch.setattr("reqon.lang.imports.MOST_ENTRIES", 30)
    (found,) = folder.load("m.vague").all_diagnostics
    assert found.code == "import-not-found" and "more than 30 files and folders" in found.message
    monkeypatch.setattr("reqon.lang.imports.MOST_ENTRIES", 31)
    assert codes(folder.load("m.vague")) == []
    (tmp_path / "parts" / "inner").chmod(0o600)
    with bound_by_file_modes():
        (found,) = folder.load("m.vague").all_diagnostics
    (tmp_path / "parts" / "inner").chmod(0o700)
    assert found.code == "import-not-found" and "Permission denied" in found.message


def test_one_file_reached_by_two_ways_is_no_clash(folder: Folder) -> None:
    folder.write(base="schema Bin { id: string }", a='import "base"', b='import "base"')
    folder.put("m.vague", 'import "a"\nimport "b"\n' + mission("M"))
    assert codes(folder.load("m.vague")) == []


def test_an_error_in_an_imported_action_shows_its_own_place(folder: Folder) -> None:
    folder.write(lib="action Clean { clear rowz }\naction Unused { clear nothing }")
    folder.put("m.vague", 'import "lib"\n' + mission("M").replace("run Load", "run Load then Clean"))
    (found,) = folder.load("m.vague").all_diagnostics
    assert found.code == "undefined-store"
    assert found.span is not None
    assert found.span.source.name.endswith("lib.vague")


def test_a_broken_library_breaks_its_importers_and_is_reported_once(folder: Folder) -> None:
    folder.write(lib="schema Bin { code }", a='import "lib"\n' + mission("A"), b=mission("B"))
    program = folder.load()
    assert names(program) == ["B"]
    assert codes(program) == ["syntax"]
    assert [unit.path.name for unit in program.units if unit.errors] == ["a.vague", "lib.vague"]


# --- what comes out --------------------------------------------------------------------------------------------------


def test_white_space_and_comments_do_not_change_the_definition_hash() -> None:
    text = mission("M")
    other = "// a comment\n" + text.replace(" store ", "\n\n  store  ")
    changed = text.replace('"/x"', '"/y"')
    first, second, third = (load_text(Source("m", t)).missions[0].definition_hash for t in (text, other, changed))
    assert first == second != third
    assert len(first) == 16


def test_what_a_mission_does_not_use_of_a_library_does_not_change_its_hash(folder: Folder) -> None:
    folder.put("m.vague", 'import "lib"\n' + mission("M").replace("run Load", "run Load then Clean"))
    folder.write(lib="action Clean { clear rows }")
    first = folder.load("m.vague").missions[0].definition_hash
    folder.write(lib="action Clean { clear rows }\nschema Other { a: int }")
    assert folder.load("m.vague").missions[0].definition_hash == first
    folder.write(lib="action Clean { delete rows[1] }")
    assert folder.load("m.vague").missions[0].definition_hash != first


def test_the_content_hash_changes_with_any_file_of_a_unit(folder: Folder) -> None:
    folder.put("mission.vague", mission("M"))
    folder.write(part="let a = 1")
    first = folder.load().units[0].content_hash
    folder.write(part="let a = 1 // same")
    assert folder.load().units[0].content_hash != first


def test_without_a_run_clause_the_only_entry_action_is_the_pipeline() -> None:
    text = 'mission M { source S { base: "http://localhost" } action A { jump B } action B { get "/x" } }'
    program = load_text(Source("m", text))
    assert codes(program) == ["missing-run"]
    pipeline = program.missions[0].pipeline
    assert pipeline is not None
    assert [stage.actions[0].text for stage in pipeline.stages] == ["A"]
    assert load_text(Source("m", "mission M { }")).missions[0].pipeline is None


def test_the_python_api_loads_a_text_with_imports_relative_to_a_folder(folder: Folder) -> None:
    folder.write(lib="let limit = 4")
    program = load_text(Source("<text>", 'import "lib"\n' + mission("M")), folder=folder.path)
    assert "limit" in program.missions[0].lets


def test_imports_that_lead_nowhere_end_the_search(tmp_path: Path) -> None:
    """N5: each asks the disk, and a text may have tens of thousands of them."""
    text = "".join(f'import "nowhere{n}"\n' for n in range(5_000)) + "mission M { action A { skip } run A }"
    (tmp_path / "m.vague").write_text(text)
    found = [d for d in load([tmp_path / "m.vague"]).all_diagnostics if d.code == "import-not-found"]
    assert 500 <= len(found) < 510


def test_an_import_that_stands_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "shared.vague").write_text("schema S { a: int }")
    uses = "mission M { action A { let x = { a: 1 } match x { S -> skip, n.S -> skip, _ -> skip } } run A }"
    imports = 'import "shared"\nimport n from "shared"\n' * 3
    (tmp_path / "m.vague").write_text(imports + uses)
    assert not load([tmp_path / "m.vague"]).has_errors
