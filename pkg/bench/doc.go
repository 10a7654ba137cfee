// Package bench measures the product against the usual ways of doing the same: whole processes for every pod (plugin), the
// agent's resync (agent), and what a new connection costs in the kernel (datapath) and in the translation log (translations).
//
//	make bench                       # all of them, in some minutes; the report is bin/bench/report.md
//	make bench BENCH=Datapath        # one of them: Plugin, Agent, Start, Churn, Datapath, Egress, Repair, Translations, Memory or Resident
//	make bench BENCH_FULL=1          # the whole grids
//
// All subjects of one table are measured in turns, on hosts of their own made of network namespaces, so that whatever else
// the machine does hits all of them alike. A ratio is the median of the ratios of single turns, not the ratio of two
// medians. Absolute times are for information: they follow the machine.
//
// It asserts correctness (no pod lost, no connection without its verdict) and never a time: goals are printed beside what was
// measured. It holds nothing that the programs link.
package bench
