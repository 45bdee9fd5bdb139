//! Bars with whiskers, as SVG that reads on light and dark pages.

use std::path::Path;

use anyhow::{Context, Result};

use super::datapath::Kind;
use super::measure::Figures;
use super::results::{RATIOS, Results, Spread};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 90.0;
const BAR: f64 = 26.0;

/// Writes one file per metric into `folder`; their names.
pub fn write(results: &Results, folder: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut names = Vec::new();
    for metric in RATIOS.iter().filter(|metric| metric.key != "errors") {
        let title = format!("{}, ratio to plain NAT", metric.title);
        let text = bars(&title, &rows(results, metric.value));
        let name = format!("{}.svg", metric.key);
        let path = folder.join(&name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        names.push(name);
    }
    Ok(names)
}

fn rows(results: &Results, value: fn(&Figures) -> f64) -> Vec<(&'static str, Spread)> {
    Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind.name(), results.ratio(kind, value)?)))
        .collect()
}

fn bars(title: &str, rows: &[(&str, Spread)]) -> String {
    let top = rows
        .iter()
        .map(|(_, spread)| spread.max)
        .fold(1.0, f64::max)
        * 1.05;
    let scale = (WIDTH - LEFT - 70.0) / top;
    let height = 40.0 + BAR * 1.4 * rows.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"14\" fill=\"#7a8594\">\n\
         <text x=\"8\" y=\"20\" font-weight=\"600\">{title}</text>\n"
    );
    for (number, (name, spread)) in rows.iter().enumerate() {
        let y = 36.0 + BAR * 1.4 * number as f64;
        let middle = y + BAR / 2.0;
        let colour = if *name == "postern" {
            "#2f6fed"
        } else {
            "#9aa4b2"
        };
        let (low, high) = (LEFT + spread.min * scale, LEFT + spread.max * scale);
        svg.push_str(&format!("<text x=\"8\" y=\"{label:.1}\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\" fill=\"{colour}\"/>\
             <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {a:.1}v8M{high:.1} {a:.1}v8\" stroke=\"#4b5563\" fill=\"none\"/>\
             <text x=\"{text:.1}\" y=\"{label:.1}\">{median:.2}</text>\n",
            label = middle + 5.0,
            width = (spread.median * scale).max(1.0),
            a = middle - 4.0,
            text = high.max(LEFT + spread.median * scale) + 8.0,
            median = spread.median
        ));
    }
    let one = LEFT + scale;
    svg.push_str(&format!("<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"30\" y2=\"{:.1}\" stroke=\"#d97706\" stroke-dasharray=\"4 3\"/>\n</svg>\n",
        height - 6.0
    ));
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_whisker_stays_inside() {
        let spread = Spread {
            median: 9.0,
            min: 2.0,
            max: 13.0,
        };
        let svg = bars("t", &[("squid", spread)]);
        assert!(svg.contains("squid") && svg.ends_with("</svg>\n"));
        let end = LEFT + 13.0 * (WIDTH - LEFT - 70.0) / (13.0 * 1.05);
        assert!(end < WIDTH - 60.0);
    }
}
