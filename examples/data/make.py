"""Makes the trade folder beside this file: order, invoice, bill of lading, packing list, inspection photographs.

Everything in it is invented. Run once; the results are kept so that examples, demo and tests read the same bytes:

    python examples/data/make.py

The photographs are drawn with NumPy and written as PNG by the few lines below, so that the same code gives the same pictures.
"""

from __future__ import annotations

import csv
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
TRADE = HERE / "trade"

SELLER = {"name": "Costa Verde Café Ltda.", "street": "Rua das Palmeiras 118", "town": "11013-200 Santos", "country": "BR"}
BUYER = {"name": "Nordkai Rösterei GmbH", "street": "Am Speicherkai 7", "town": "20457 Hamburg", "country": "DE"}
CARRIER = "Meridian Liner Services"
CONTAINER = "MLSU 420117 3"
LINES = [
    # lot, goods, bags, kilograms net per bag, unit price in EUR per kilogram
    ("CV-2041", "Green coffee, arabica, washed, screen 17/18", 160, 60, 6.42),
    ("CV-2042", "Green coffee, arabica, natural, screen 16", 100, 60, 5.87),
    ("CV-2057", "Green coffee, arabica, micro-lot Boa Esperança", 40, 30, 11.90),
]
BAG_TARE_KG = 0.6

Image = npt.NDArray[np.uint8]


def write_texts() -> None:
    """Order (JSON), invoice (text), bill of lading (text), packing list (CSV)."""
    order = {
        "order": "NK-4500-1187",
        "date": "2026-02-03",
        "buyer": BUYER,
        "seller": SELLER,
        "incoterm": "FOB Santos (Incoterms 2020)",
        "shipment": {"from": "BRSSZ", "to": "DEHAM", "latest": "2026-03-20"},
        "payment": "30 % with order, 70 % against documents",
        "lines": [
            {"lot": lot, "goods": goods, "bags": bags, "net_kg": bags * kg, "eur_per_kg": price} for lot, goods, bags, kg, price in LINES
        ],
        "inspections": ["moisture", "screen size", "defects", "cup score", "container seal"],
    }
    (TRADE / "order.json").write_text(json.dumps(order, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    total = 0.0
    rows = []
    for lot, goods, bags, kg, price in LINES:
        amount = round(bags * kg * price, 2)
        total += amount
        rows.append(f"  {lot:<9} {goods:<46} {bags * kg:>6} kg  {price:>6.2f}  {amount:>10.2f}")
    deposit = round(total * 0.3, 2)
    invoice = [
        "COMMERCIAL INVOICE                                     No. CV/2026/0392",
        "                                                       Santos, 12 March 2026",
        "",
        f"Seller   {SELLER['name']}, {SELLER['street']}, {SELLER['town']}, {SELLER['country']}",
        f"Buyer    {BUYER['name']}, {BUYER['street']}, {BUYER['town']}, {BUYER['country']}",
        "Order    NK-4500-1187 of 3 February 2026",
        "Terms    FOB Santos (Incoterms 2020)",
        f"Marks    {CONTAINER}, seal ML 088412",
        "",
        f"  {'Lot':<9} {'Goods':<46} {'Net':>9}  EUR/kg  {'EUR':>10}",
        *rows,
        "",
        f"  Total                                                                 EUR {total:>10.2f}",
        f"  Received with order (30 %)                                            EUR {-deposit:>10.2f}",
        f"  Due against documents                                                 EUR {total - deposit:>10.2f}",
        "",
        "Country of origin: Brazil. HS 0901.11. We certify that this invoice is true and correct.",
    ]
    (TRADE / "invoice.txt").write_text("\n".join(invoice) + "\n", encoding="utf-8")

    bags_total = sum(bags for _, _, bags, _, _ in LINES)
    net = sum(bags * kg for _, _, bags, kg, _ in LINES)
    bill = [
        "BILL OF LADING                                         No. MLS-SSZ-26031577",
        f"Carrier            {CARRIER}",
        f"Shipper            {SELLER['name']}, Santos",
        f"Consignee          To the order of {BUYER['name']}, Hamburg",
        "Notify             Nordkai Zollservice, Hamburg",
        "Vessel, voyage     MV Aurora Meridian, 611N",
        "Port of loading    Santos (BRSSZ)",
        "Port of discharge  Hamburg (DEHAM)",
        "",
        f"Container          {CONTAINER}   20' dry, food grade, lined",
        "Seal               ML 088412",
        f"Packages           {bags_total} bags of green coffee",
        f"Gross weight       {net + bags_total * BAG_TARE_KG:.0f} kg",
        "",
        "Shipped on board in apparent good order and condition, clean, freight collect.",
        "Place and date     Santos, 15 March 2026",
        "Originals issued   three (3)",
    ]
    (TRADE / "bill-of-lading.txt").write_text("\n".join(bill) + "\n", encoding="utf-8")

    with (TRADE / "packing-list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pallet", "lot", "goods", "bags", "net_kg", "gross_kg"])
        pallet = 0
        for lot, goods, bags, kg, _ in LINES:
            left = bags
            while left:
                pallet += 1
                here = min(20, left)
                left -= here
                writer.writerow([pallet, lot, goods, here, here * kg, f"{here * (kg + BAG_TARE_KG):.1f}"])


def write_png(path: Path, image: Image) -> None:
    """image: height x width x 3, 8 bits each (PNG specification, colour type 2, filter 2 on every row)."""
    height, width, _ = image.shape
    rows = image.reshape(height, width * 3)
    up = rows.copy()
    up[1:] -= rows[:-1]
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1).tobytes()

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(filtered, 9)) + part(b"IEND", b""))


def _canvas(height: int, width: int, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image:
    """A vertical gradient."""
    mix = np.linspace(0, 1, height)[:, None, None]
    colours = np.array(top) * (1 - mix) + np.array(bottom) * mix
    return np.broadcast_to(colours, (height, width, 3)).astype(np.uint8).copy()


def _grain(image: Image, strength: int, seed: int) -> Image:
    """Sensor noise: coarse steps, so that the files stay small."""
    noise = np.random.default_rng(seed).integers(-strength, strength + 1, size=image.shape[:2])[:, :, None] * 4
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def container() -> Image:
    """The container on the quay, with its seal."""
    image = _canvas(240, 360, (168, 196, 222), (226, 229, 226))
    image[188:] = (120, 118, 112)
    image[70:196, 30:330] = (176, 74, 48)
    for x in range(30, 330, 12):
        image[74:192, x : x + 4] = (148, 58, 38)
    image[70:196, 236:240] = (70, 40, 34)
    image[120:136, 250:262] = (222, 186, 40)
    return _grain(image, 1, 1)


def bags() -> Image:
    """Bags on a pallet."""
    image = _canvas(240, 360, (96, 88, 80), (62, 58, 54))
    y, x = np.mgrid[0:240, 0:360]
    for row in range(4):
        for column in range(5):
            cx, cy = 50 + column * 65 + (row % 2) * 12, 200 - row * 46
            inside = ((x - cx) / 34) ** 4 + ((y - cy) / 21) ** 4 < 1
            shade = 1 - 0.35 * (y - cy + 21) / 42
            image[inside] = (np.array((196, 164, 112)) * shade[inside][:, None]).astype(np.uint8)
    return _grain(image, 1, 2)


def sample() -> Image:
    """A sample tray seen from above: beans, and three defects an inspector would mark."""
    random = np.random.default_rng(3)
    image = _canvas(240, 360, (236, 234, 228), (220, 218, 212))
    y, x = np.mgrid[0:240, 0:360]
    for number in range(260):
        cx, cy, turn = random.uniform(20, 340), random.uniform(20, 220), random.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
        bean = (u / 10) ** 2 + (v / 6.5) ** 2 < 1
        image[bean] = (60, 44, 30) if number % 87 == 5 else (134 + number % 24, 146 + number % 18, 104)
        image[bean & (np.abs(v) < 0.9)] = (96, 104, 74)
    return _grain(image, 1, 4)


def main() -> None:
    """Writes everything into trade/."""
    (TRADE / "photographs").mkdir(parents=True, exist_ok=True)
    write_texts()
    for name, draw in (("container", container), ("bags", bags), ("sample", sample)):
        write_png(TRADE / "photographs" / f"{name}.png", draw())


if __name__ == "__main__":
    main()
