// SPDX-License-Identifier: MIT
/* What the lane must notice, or its silence says nothing. */
#include <limits.h>

#include "check.h"

CASE(overflow)
{
	/* volatile: the compiler shall not know how long it is. */
	char *volatile bytes = calloc(1, 8);

	CHECK(bytes != NULL);
	CHECK_EQ(bytes[check_count + 7], 0);
	free(bytes);
}

CASE(leak)
{
	void *volatile lost = malloc(8);

	CHECK(lost != NULL);
	lost = NULL;
}

CASE(undefined)
{
	volatile int largest = INT_MAX;

	CHECK(largest + (int)(check_count + 1) != 0);
}

CASE(failed)
{
	CHECK_EQ(check_count, 1);
}

CASE(vacuous)
{
}
