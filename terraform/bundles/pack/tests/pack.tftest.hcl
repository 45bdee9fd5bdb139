run "nothing_in_nothing_out" {
  command = plan
  variables {
    prefix = "postern:tls:"
    names  = []
    limit  = 255
  }
  assert {
    condition     = length(output.descriptions) == 0
    error_message = "no names, no descriptions"
  }
}

run "order_is_kept_case_is_folded_and_a_second_occurrence_is_left_out" {
  command = plan
  variables {
    prefix = "postern:ssh:"
    names  = ["B.example", "a.example", "b.example", "git.example=SHA256:AbC", "@Team-1"]
    limit  = 255
  }
  assert {
    condition     = join(" ", output.descriptions) == "postern:ssh:b.example,a.example,git.example=SHA256:AbC,@Team-1"
    error_message = jsonencode(output.descriptions)
  }
}

run "each_is_as_full_as_it_can_be" {
  command = plan
  variables {
    prefix = "postern:tls:"
    names  = [for index in range(200) : format("name-%03d.example.com", index)] # 20 characters: 11 fit in 243, with 12 it is 251.
    limit  = 255
  }
  assert {
    condition     = length(output.descriptions) == ceil(200 / 11)
    error_message = "${length(output.descriptions)} descriptions"
  }
  assert {
    condition     = alltrue([for text in output.descriptions : length(text) <= 255])
    error_message = "one is too long"
  }
  assert {
    condition     = join(",", [for text in output.descriptions : trimprefix(text, "postern:tls:")]) == join(",", var.names)
    error_message = "a name is lost or moved"
  }
}

run "a_name_that_just_fits_is_taken" {
  command = plan
  variables {
    prefix = "postern:tls:"
    names  = ["a.example", join("", [for index in range(243) : "a"]), "b.example"]
    limit  = 255
  }
  assert {
    condition     = jsonencode([for text in output.descriptions : length(text)]) == "[21,255,21]"
    error_message = jsonencode(output.descriptions)
  }
}

run "a_name_that_cannot_fit_is_an_error" {
  command = plan
  variables {
    prefix = "postern:tls:"
    names  = [join("", [for index in range(244) : "a"])]
    limit  = 255
  }
  expect_failures = [output.descriptions]
}

run "more_than_64_is_an_error" {
  command = plan
  variables {
    prefix = "postern:tls:"
    names  = [for index in range(65) : join("", [for letter in range(200) : substr(format("%03d", index), letter % 3, 1)])]
    limit  = 255
  }
  expect_failures = [output.descriptions]
}
