# SPDX-License-Identifier: MIT
#
# Say what each directory of a kernel tree compiles into what, without compiling it:
#	make -rR -s -f walk.mk walk="init kernel ..."
# A line for each: "dir NAME KIND WORDS" (KIND is obj-y, obj-m, lib-y, subdirs) and, for
# an object that is linked of others, "part NAME OBJECT WORDS".

include include/config/auto.conf
srctree := .
objtree := .
abs_srctree := $(CURDIR)
SRCARCH := x86
ARCH := x86_64
BITS := 64
VPATH :=
empty :=
space := $(empty) $(empty)
comma := ,
parts = $(strip $($(1:.o=-objs)) $($(1:.o=-y)) $($(1:.o=-m)))

define scan
$(foreach name,$(filter-out $(kept),$(.VARIABLES)),$(eval undefine $(name)))
$(eval obj := $(1))
$(eval src := $(1))
$(eval -include $(firstword $(wildcard $(1)/Kbuild $(1)/Makefile)))
$(foreach kind,obj-y obj-m lib-y lib-m,$(if $($(kind)),$(info dir $(1) $(kind) $($(kind)))))
$(if $(subdir-y)$(subdir-m),$(info dir $(1) subdirs $(subdir-y) $(subdir-m)))
$(foreach object,$(filter %.o,$(obj-y) $(obj-m)),$(if $(call parts,$(object)),$(info part $(1) $(object) $(call parts,$(object)))))
endef

kept :=
kept := $(.VARIABLES) kept

$(foreach name,$(walk),$(call scan,$(name)))

.PHONY: walked
.DEFAULT_GOAL := walked
walked:
	@:
