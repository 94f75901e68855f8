// What the test of a pass includes: models from text, passes by their line, weights as text.

#pragma once

#include "compress/graph/text.h"
#include "compress/weight.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>

namespace compress::testing {

using ::testing::HasSubstr;

}  // namespace compress::testing
