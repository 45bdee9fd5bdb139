# CycloneDX 1.5 of what one crate of the workspace links, from `cargo metadata`. Build-time and test-time crates are not
# in the program and not in here.
. as $all
| (reduce .resolve.nodes[] as $node ({}; .[$node.id] = [
    $node.deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg
  ])) as $edges
| (.packages[] | select(.name == $root and .source == null) | .id) as $start
| (reduce range(0; 200) as $_ ({seen: {($start): true}, new: [$start]};
    if .new == [] then . else
      .seen as $seen
      | ([.new[] | $edges[.][]] | unique | map(select($seen[.] | not))) as $next
      | {seen: (reduce $next[] as $id ($seen; .[$id] = true)), new: $next}
    end
  ) | .seen) as $linked
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: ($epoch | tonumber | todate),
      component: {type: "application", name: $root, version: $version}
    },
    components: [
      $all.packages[]
      | select($linked[.id] and .source != null)
      | {
          type: "library",
          name,
          version,
          purl: "pkg:cargo/\(.name)@\(.version)",
          licenses: (if .license then [{expression: .license}] else [] end)
        }
    ] | sort_by(.name, .version)
  }
