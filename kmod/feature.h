/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KLPCTL_FEATURE_H
#define _KLPCTL_FEATURE_H

#include <linux/bits.h>

#include "core.h"
#include "kick.h"
#include "klpctl.h"
#include "reason.h"
#include "stack.h"
#include "task.h"
#include "transition.h"

/* What this kernel lets klpctl do: enum klpctl_feature, as bits. */
static inline u64 klpctl_features(void)
{
	return (klpctl_transition_watched() ? BIT_ULL(KLPCTL_FEATURE_EVENTS) : 0) |
	       (klpctl_kick_active() ? BIT_ULL(KLPCTL_FEATURE_FAST) : 0) |
	       (klpctl_core_visible() ? BIT_ULL(KLPCTL_FEATURE_FOREIGN) : 0) |
	       (klpctl_task_sees_idle() ? BIT_ULL(KLPCTL_FEATURE_IDLE) : 0) |
	       (klpctl_reason_seen() ? BIT_ULL(KLPCTL_FEATURE_REASONS) : 0) |
	       (klpctl_stack_available() ? BIT_ULL(KLPCTL_FEATURE_STACKS) : 0) |
	       (klpctl_core_clears_relocs() ? BIT_ULL(KLPCTL_FEATURE_RELOC_CLEAR) : 0);
}

#endif /* _KLPCTL_FEATURE_H */
