"""Curves as SVG and PNG. The door to matplotlib."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import matplotlib

from .harness import RESULTS

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first


def plot_curve(points: Mapping[int, Sequence[float]], before: float, after: float) -> None:
    """P3: mean ack over the number of documents that were put at the same instant; every run a dot, the medians a line."""
    counts = sorted(points)
    medians = [statistics.median(points[count]) for count in counts]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for count in counts:
        axes.plot([count] * len(points[count]), points[count], ".", color="#9bb", markersize=5)
    axes.plot(counts, medians, "-o", color="#135", markersize=4, label="median of runs")
    axes.plot([180], [200], "v", color="#a30", label="floor: 200 ms at 180")
    axes.axvline(180, color="#bbb", linewidth=0.8, linestyle=":")
    axes.set_xlabel("documents of 4–64 KiB put at the same instant (--ack quorum, 3 nodes)")
    axes.set_ylabel("mean acknowledgement, ms")
    axes.set_title(f"P3: {before:.2f} ms a document before 180, {after:.2f} after")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.25)
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"p3_ack.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def plot_anchors(steps: Sequence[tuple[float, float, float, float]]) -> None:
    """P5 and P6: committed a second and mean times over what was offered. steps: (offered, committed, block ms, final ms)."""
    offered = [step[0] for step in steps]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    left.plot(offered, [step[1] for step in steps], "-o", color="#135", markersize=4, label="committed")
    left.plot(offered, offered, ":", color="#bbb", label="all of it")
    left.axhline(100, color="#a30", linewidth=0.8, linestyle="--", label="floor: 100/s")
    left.set_ylabel("anchors committed a second")
    right.plot(offered, [step[2] for step in steps], "-o", color="#135", markersize=4, label="to the block")
    right.plot(offered, [step[3] for step in steps], "-o", color="#9bb", markersize=4, label="to final")
    right.set_ylabel("mean time, ms")
    for axes in (left, right):
        axes.set_xlabel("anchors offered a second, five nodes on one machine")
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.grid(alpha=0.25)
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"anchors.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def plot_lane(values: Mapping[str, Sequence[float]]) -> None:
    """The lane: rate of one stream, ours and the stock library's; every run a dot, the medians bars."""
    names = {"lane_one": "ours", "lane_stock": "stock py-libp2p"}
    figure, axes = plt.subplots(figsize=(5, 3.6))
    for place, (name, label) in enumerate(names.items()):
        axes.bar(place, statistics.median(values[name]), width=0.5, color=("#135", "#9bb")[place], label=label)
        axes.plot([place] * len(values[name]), values[name], ".", color="#a30", markersize=5)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set_ylabel("MB/s")
    axes.set_title("One stream between two processes")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25, axis="y")
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"lane.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def plot_light(points: Sequence[Sequence[int]]) -> None:
    """P20: what the chain takes on a full and on a light node's disk, over the number of records."""
    records = [point[0] for point in points]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for index, (label, color) in enumerate((("full node", "#135"), ("light node", "#a30")), 1):
        axes.plot(records, [point[index] / 1e6 for point in points], "-o", color=color, markersize=4, label=label)
    axes.plot(records, [point[1] / 1e8 for point in points], ":", color="#bbb", label="1 % of the full node")
    axes.set_yscale("log")
    axes.set_xlabel("records on the chain, 10 a block")
    axes.set_ylabel("MB on disk")
    axes.set_title("What a chain takes on disk")
    axes.legend()
    axes.grid(alpha=0.25)
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"light.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def plot_wires(values: Mapping[str, Sequence[float]]) -> None:
    """Lines that are long, lossy or narrow: ours beside a plain socket; every run a dot, the medians bars."""
    names = [name for name in values if not name.endswith("_socket") and values[name]]
    figure, axes = plt.subplots(figsize=(8, 3.8))
    for side, (tail, color, label) in enumerate((("", "#135", "one stream of Lading"), ("_socket", "#9bb", "plain TCP socket"))):
        places = [place + 0.4 * side - 0.2 for place in range(len(names))]
        axes.bar(places, [statistics.median(values[name + tail]) for name in names], width=0.4, color=color, label=label)
        for place, name in zip(places, names, strict=True):
            axes.plot([place] * len(values[name + tail]), values[name + tail], ".", color="#a30", markersize=4)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n", 1) for name in names])
    axes.set_yscale("log")
    axes.set_ylabel("MB/s")
    axes.set_title("delay and jitter: ms there and back; loss: % of packets; rate: Mbit/s")
    axes.legend()
    axes.grid(alpha=0.25, axis="y")
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"wires.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def plot_peers(values: Mapping[str, Sequence[float]], *, bulk_mib: int, count: int) -> None:
    """Lading and Syncthing on the same files; every run a dot, the medians bars."""
    panels: tuple[tuple[str, str, Mapping[str, str]], ...] = (
        (
            f"one file of {bulk_mib} MiB",
            "MB/s (higher is better)",
            {"peers_get_rate": "Lading\nget", "peers_syncthing_rate": "Syncthing", "peers_socket_rate": "clear\nsocket"},
        ),
        (
            f"{count} × 10 KiB",
            "s until durable (lower is better)",
            {"peers_many_10k_lading": "Lading", "peers_many_10k_syncthing": "Syncthing"},
        ),
        (
            f"{count} × 1 MiB",
            "s until durable (lower is better)",
            {"peers_many_1m_lading": "Lading", "peers_many_1m_syncthing": "Syncthing"},
        ),
    )
    figure, all_axes = plt.subplots(1, len(panels), figsize=(10, 3.6))
    for axes, (title, unit, names) in zip(all_axes, panels, strict=True):
        for place, name in enumerate(names):
            axes.bar(place, statistics.median(values[name]), width=0.6, color=("#135", "#9bb", "#ddd")[place])
            axes.plot([place] * len(values[name]), values[name], ".", color="#a30", markersize=5)
        axes.set_xticks(range(len(names)), list(names.values()))
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25, axis="y")
    figure.tight_layout()
    for kind in ("svg", "png"):
        figure.savefig(RESULTS / f"peers.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
