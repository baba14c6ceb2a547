// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events: numbered, and given to those who send them on. Listeners that are too slow
 * lose events and see it by their numbers; nothing here waits for them.
 *
 * All of this is under klpctl_registry_lock(), but for the sinks, which are added
 * before anything happens.
 */
#include "event.h"

static LIST_HEAD(sinks);
static u64 seq;		/* of the newest event */

void klpctl_event_add_sink(struct klpctl_event_sink *sink)
{
	list_add_tail(&sink->node, &sinks);
}

bool klpctl_event_has_target(const struct klpctl_event *event)
{
	return event->action == KLPCTL_ACTION_STARTED ||
	       event->action == KLPCTL_ACTION_REVERSED ||
	       event->action == KLPCTL_ACTION_PROGRESS ||
	       event->action == KLPCTL_ACTION_FORCED ||
	       event->action == KLPCTL_ACTION_COMPLETED;
}

/* Does anybody listen to progress? */
bool klpctl_event_wanted(void)
{
	const struct klpctl_event_sink *sink;

	list_for_each_entry(sink, &sinks, node)
		if (sink->wanted && sink->wanted())
			return true;
	return false;
}

/*
 * Number an event and send it. Progress has the number of the event before it, and
 * goes to those only who can want it, so that the others see no gap.
 */
void klpctl_event_send(struct klpctl_event *event)
{
	bool progress = event->action == KLPCTL_ACTION_PROGRESS;
	const struct klpctl_event_sink *sink;

	event->seq = progress ? seq : ++seq;
	list_for_each_entry(sink, &sinks, node)
		if (!progress || sink->wanted)
			sink->send(event);
}

/* Leave a gap in the numbers: something was missed. */
void klpctl_event_skip(void)
{
	seq++;
}

u64 klpctl_event_seq(void)
{
	return seq;
}
