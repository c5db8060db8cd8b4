"""`hide` and `unhide` on the command line."""

from __future__ import annotations

import json

from tests.conftest import Command
from tests.support.shop import Shop


def test_out_of_sale_and_back(command: Command, shop: Shop) -> None:
    shop.publish()
    repo = ["--repo", shop.repo.path]

    def similar() -> list[str]:
        ran = command("similar-items", "sku-1", "-k", 99, "--json", *repo)
        return [row["item_id"] for row in json.loads(ran.out)["neighbours"]]

    whole = similar()
    ran = command("hide", "--item", whole[0], "--item", "sku-new", "--user", "u-1", *repo)
    assert (ran.code, ran.err) == (0, "")
    assert (
        ran.out
        == "hid 1 user and 2 items\nnot in the live version, they stay hidden when a version has them: sku-new\n"
    )
    assert similar() == whole[1:]
    listed = command("hide", "--list", *repo)
    assert listed.out == f"hidden users: u-1\nhidden items: {', '.join(sorted([whole[0], 'sku-new']))}\n"
    again = json.loads(command("hide", "--user", "u-1", "--list", "--json", *repo).out)
    assert (again["users"], again["hidden_users"]) == (0, ["u-1"])
    assert command("hide", "--user", "u-1", *repo).out == "hid none: all of them were so already\n"
    back = command("unhide", "--item", whole[0], "--item", "sku-new", "--user", "u-1", *repo)
    assert back.out.startswith("showed again 1 user and 2 items\n")
    assert similar() == whole
    assert command("hide", "--list", *repo).out == "hidden users: none\nhidden items: none\n"
    assert json.loads(command("unhide", "--item", "sku-2", "--json", *repo).out)["items"] == 0


def test_names_what_is_missing(command: Command, shop: Shop) -> None:
    for name, text in (("hide", "name whom to hide"), ("unhide", "name whom to show again")):
        ran = command(name, "--repo", shop.repo.path)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert text in ran.err
