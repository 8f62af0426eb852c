//! Which pages of the heap messages touch: a heat map over the address space.

use crate::BenchError;
use plotters::prelude::*;
use replicore_engine::profile::{EntryProfile, Profile};
use std::collections::BTreeMap;

const WIDTH: u32 = 1_040;
const LABEL_HEIGHT: u32 = 22;
/// Cells in a row of the map, and the size of each.
const CELLS: u64 = 128;
const CELL: u32 = 8;
const MARGIN: u32 = 8;
/// Rows of one map: beyond that a cell stands for more pages.
const ROWS_MAX: u64 = 48;
const GROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
const UNTOUCHED: RGBColor = RGBColor(0xf0, 0xf1, 0xf3);
const READ: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const WRITTEN: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// One map.
struct Map<'a> {
    label: String,
    pages: &'a BTreeMap<u64, u64>,
    messages: u64,
    color: RGBColor,
    /// Pages of a cell.
    scale: u64,
    /// Rows of cells that are drawn, by their place in the address space: rows in which nothing is touched are left out.
    rows: Vec<u64>,
}

/// Draws two maps per entry point, pages read and pages written. A cell is a page, or several neighbours where the touched
/// part of the heap is large; the darker, the larger the part of the messages that touches it. Rows of untouched cells are
/// left out.
///
/// # Errors
/// It cannot be drawn.
pub fn heat(profile: &Profile) -> Result<String, BenchError> {
    let mut maps = Vec::new();
    for ((canister, name), entry) in &profile.entries {
        let label = |what: &str| format!("{canister} {name}: pages {what}");
        maps.extend(Map::new(label("read"), &entry.heap_pages_read, entry, READ));
        maps.extend(Map::new(label("written"), &entry.heap_pages_written, entry, WRITTEN));
    }
    let height: u32 = maps.iter().map(Map::height).sum::<u32>() + 2 * MARGIN;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&GROUND).map_err(BenchError::new)?;
        let mut top = MARGIN;
        for map in &maps {
            map.draw(&area, top).map_err(BenchError::new)?;
            top += map.height();
        }
        area.present().map_err(BenchError::new)?;
    }
    Ok(svg)
}

impl<'a> Map<'a> {
    fn new(label: String, pages: &'a BTreeMap<u64, u64>, entry: &EntryProfile, color: RGBColor) -> Option<Self> {
        if pages.is_empty() {
            return None;
        }
        let mut scale = 1;
        let rows = loop {
            let mut rows: Vec<u64> = pages.keys().map(|page| page / scale / CELLS).collect();
            rows.dedup();
            if rows.len() as u64 <= ROWS_MAX {
                break rows;
            }
            scale *= 2;
        };
        Some(Self {
            label,
            pages,
            messages: entry.messages.max(1),
            color,
            scale,
            rows,
        })
    }

    fn height(&self) -> u32 {
        LABEL_HEIGHT + self.rows.len() as u32 * CELL + MARGIN
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        top: u32,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let unit = match self.scale {
            1 => "a cell is a page of 4 KiB".to_owned(),
            pages => format!("a cell is {pages} pages of 4 KiB"),
        };
        let label = format!("{} ({} messages; {unit})", self.label, self.messages);
        let style = ("sans-serif", 14).into_font();
        area.draw(&Text::new(label, (MARGIN as i32, top as i32), style))?;
        for (position, row) in self.rows.iter().enumerate() {
            let y = (top + LABEL_HEIGHT + position as u32 * CELL) as i32;
            let ground = [
                (MARGIN as i32, y),
                ((MARGIN + CELLS as u32 * CELL) as i32, y + CELL as i32 - 1),
            ];
            area.draw(&Rectangle::new(ground, UNTOUCHED.filled()))?;
            let first = row * CELLS * self.scale;
            let mut cells: BTreeMap<u64, u64> = BTreeMap::new();
            for (page, messages) in self.pages.range(first..first + CELLS * self.scale) {
                let cell = cells.entry((page - first) / self.scale).or_default();
                *cell = (*cell).max(*messages);
            }
            for (cell, messages) in cells {
                let x = (MARGIN + cell as u32 * CELL) as i32;
                let share = messages as f64 / self.messages as f64;
                // What is touched once must be seen too.
                let color = self.color.mix(0.15 + 0.85 * share.min(1.0));
                let corners = [(x, y), (x + CELL as i32 - 1, y + CELL as i32 - 1)];
                area.draw(&Rectangle::new(corners, color.filled()))?;
            }
        }
        Ok(())
    }
}
