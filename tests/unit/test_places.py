"""Which objects of the store a team may name: a table of what attackers write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.image_refs import BadItem, ImageNames, ImageRef
from orchestrator.domain.places import PRIVATE_FOLDERS, InputPlaces, Place, PlaceRefused, PlacesWrong

OPEN = ["photos/open/", "team_a=photos/theirs", "janus/shared/", "s3://whole", "team_b=janus/b/"]
PLACES = InputPlaces(OPEN, own_bucket="janus")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://photos/open/", ("photos", "open/")),
        ("s3://photos/open/2024", ("photos", "open/2024")),
        ("s3://photos/open/a b/é#%2e%2e?.png", ("photos", "open/a b/é#%2e%2e?.png")),
        ("s3://photos/theirs/x.tar", ("photos", "theirs/x.tar")),
        ("s3://janus/shared/a.png", ("janus", "shared/a.png")),
        ("s3://whole", ("whole", "")),
        ("s3://whole/jobs/a.png", ("whole", "jobs/a.png")),
    ],
)
def test_what_is_open_is_found(url: str, found: tuple[str, str]) -> None:
    assert PLACES.locate(url, "team_a") == found


REFUSED = [
    "s3://photos",
    "s3://photos/",
    "s3://photos/o",
    "s3://photos/open",
    "s3://photos/opened/a.png",
    "s3://photos/Open/a.png",
    "s3://photos/open/../theirs/a.png",
    "s3://photos/open/..",
    "s3://photos/open/../",
    "s3://photos/open/./a.png",
    "s3://photos/open//a.png",
    "s3://photos/open//",
    "s3://photos//open/",
    "s3://photos/open/a\\..\\b",
    "s3://photos/open/a\x00.png",
    "s3://photos/open/a\nb.png",
    "s3://photos/open/\ud800.png",
    "s3://photos/open/" + "x" * 700,
    "s3://janus",
    "s3://janus/",
    "s3://janus/jobs/",
    "s3://janus/uploads/team_b/upl_1/a.png",
    "s3://janus/UPLOADS/team_b/upl_1/a.png",
    "s3://janus/upload",
    "s3://janus/shared/../uploads/team_b/upl_1/a.png",
    "s3://janus/b/a.png",
    "s3://other/open/a.png",
    "s3://photos.evil.example/open/a.png",
    "s3://photos:9000/open/a.png",
    "s3://user@photos/open/a.png",
    "s3://../photos/open/a.png",
    "s3://photos%2fopen/a.png",
    "s3:///photos/open/a.png",
    "s3://",
    "S3://photos/open/a.png",
    "s3:photos/open/a.png",
    "https://photos/open/a.png",
    "/photos/open/a.png",
]


@pytest.mark.parametrize("url", REFUSED)
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(PlaceRefused):
        PLACES.locate(url, "team_a")
    with pytest.raises(BadItem):
        ImageNames("", places=PLACES, team_id="team_a").refs(url)
    with pytest.raises(BadItem):
        ImageNames("", places=PLACES, team_id="team_a").refs({"object": url, "offset": 0, "num_bytes": 1})


def test_a_folder_of_one_team_is_no_others() -> None:
    assert PLACES.locate("s3://photos/theirs/", "team_a")
    for other in ("team_b", "", "TEAM_A", "team_a "):
        with pytest.raises(PlaceRefused):
            PLACES.locate("s3://photos/theirs/", other)
    assert not PLACES.covers("janus", "uploads/team_a/x.png", "team_a"), "not even its own: it has an upload for that"


def test_private_folders_stay_closed_even_if_the_list_let_them_in() -> None:
    places = InputPlaces(["photos/"], own_bucket="janus")
    places._places.append(Place("janus", ""))  # a mistake of ours, as an operator cannot write it
    assert places.covers("janus", "shared/a.png", "team_a")
    for key in ("", "u", "uploads/t/a.png", "Jobs/j/results.jsonl"):
        assert not places.covers("janus", key, "team_a")


def test_nothing_is_open_where_nothing_was_opened() -> None:
    closed = InputPlaces([], own_bucket="janus")
    for url in ("s3://photos/open/a.png", "s3://janus/a.png"):
        with pytest.raises(PlaceRefused, match="JANUS_INPUT_BUCKETS"):
            closed.locate(url, "team_a")
    with pytest.raises(BadItem, match="JANUS_INPUT_BUCKETS"):
        ImageNames("uploads/t/u/").refs("s3://photos/open/a.png")


def test_a_line_may_name_objects_and_parts_of_them() -> None:
    names = ImageNames("uploads/t/u/", places=PLACES, team_id="team_a")
    part = {"object": "s3://photos/open/x.tar", "offset": 512, "num_bytes": 9}
    refs = names.refs(["s3://whole/a.png", part, "b.png"])
    assert refs == (
        ImageRef("a.png", bucket="whole"),
        ImageRef("open/x.tar", 512, 9, "photos"),
        ImageRef("uploads/t/u/b.png"),
    )
    assert tuple(ImageRef.from_json(ref.as_json()) for ref in refs) == refs
    with pytest.raises(BadItem, match="a folder, not an image"):
        names.refs("s3://whole/a/")


@pytest.mark.parametrize(
    "text",
    ["janus", "janus/", "janus/jobs", "janus/uploads/", "janus/Uploads/team_x/", "janus/jobs/x/", "a/../b/",
     "janus/files/", "A/b/", "ab", "photos//x", "=photos/", "team a=photos/", "photos/a\x00", "", "s3://"],
)  # fmt: skip
def test_an_operators_mistake_is_told_when_the_process_starts(text: str) -> None:
    with pytest.raises(PlacesWrong):
        InputPlaces([text], own_bucket="janus")


words = "s3:// photos janus whole / .. . open theirs jobs uploads %2e \\ é a.png team_a= b"
pieces = st.sampled_from([*words.split(), "\x00", "\ud800"])


@settings(max_examples=1000, derandomize=True, deadline=2000)
@given(
    st.lists(pieces, max_size=9).map("".join) | st.text(st.characters(codec=None), max_size=40),
    st.sampled_from(["team_a", "team_b"]),
)
def test_whatever_is_written_leads_below_an_open_folder_or_nowhere(url: str, team: str) -> None:
    try:
        bucket, key = PLACES.locate(url, team)
    except PlaceRefused as error:
        str(error)
        return
    folders = {"photos": ("open/", *(["theirs/"] if team == "team_a" else [])), "whole": ("",)}
    folders["janus"] = ("shared/", *(["b/"] if team == "team_b" else []))
    assert key.startswith(folders[bucket])
    assert ".." not in key.split("/")
    assert bucket != "janus" or not key.startswith(PRIVATE_FOLDERS)
