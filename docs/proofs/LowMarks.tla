----------------------------- MODULE LowMarks -----------------------------
\* Collectors in front of the log (flows.collector, connectors.spool), and the watermark behind it (flows.intake).
\*
\* A collector stamps each call with its clock, answers when the call is safe, and hands it to the log, at once or from
\* its spool, any time later and after any number of crashes. Each message carries the collector's low mark: the least
\* stamp of all that the log has not acknowledged. The flow's watermark follows the greatest stamp that it has read, but
\* passes no low mark of a process that it knows. Each process of a collector writes under an id of its own, and says bye
\* for the one before it. The clocks of all collectors are ahead of the true one by a tick; an event has the true time.
\* One partition; no lateness is allowed, so that the claim is sharp. A topic of several is as many of these: a collector
\* answers the keys of a partition where its mark stands there, and its low mark, of all partitions, is no greater.
EXTENDS Naturals, Sequences, FiniteSets
CONSTANTS C, T, M, P,  \* collectors, ticks of the clock, messages that the log may hold, processes of a collector
          L,           \* collectors 1 to L may end in order; with L > 0 no other has a second process: too many states
          MARKS,       \* messages carry low marks, and the watermark obeys them
          RESTING,     \* the low mark counts what rests in the spool
          PERHAPS,     \* and what was handed over without an answer yet
          FIRST,       \* a new collector answers nothing until a mark of its own stands in the log
          OWN,         \* each process has an id of its own: else collectors of copied disks share one
          BEHIND,      \* the bye for the process before comes behind a word of this one
          LEAD,        \* a low mark is without the lead of the collector's clock
          DROP         \* a collector that ends drops its proof before its bye is on the way
VARIABLES now, known, rest, way, log, read, low, top, late, proc, ends
vars == <<now, known, rest, way, log, read, low, top, late, proc, ends>>

Cs == 1..C
Ids == Cs \X (1..P)
None == T + 1
Min(set) == IF set = {} THEN None ELSE CHOOSE m \in set : \A x \in set : m <= x
Max(a, b) == IF a > b THEN a ELSE b

\* rest: stamps on the spool. way: handed over, unanswered. known: there is a proof that the log waits. ends: its own bye
\* is on the way.
Init == /\ now = 1 /\ known = {} /\ rest = [c \in Cs |-> {}] /\ way = [c \in Cs |-> {}]
        /\ log = <<>> /\ read = 0 /\ low = [i \in Ids |-> 0] /\ top = 0 /\ late = FALSE /\ proc = [c \in Cs |-> 1]
        /\ ends = {}

Id(c) == IF OWN THEN <<c, proc[c]>> ELSE <<1, 1>>
Low(c) == LET unanswered == (IF RESTING THEN rest[c] ELSE {}) \cup (IF PERHAPS THEN way[c] ELSE {})
              least == Min(unanswered \cup {now})
          IN IF LEAD THEN least ELSE Min({least + 1, now})  \* the flow cuts it to the time of the log
Room == Len(log) < M
Pass == now < T /\ now' = now + 1 /\ UNCHANGED <<known, rest, way, log, read, low, top, late, proc, ends>>
\* The mark of a collector that has nothing to send: it is in the log before the collector goes on.
Mark(c) == /\ MARKS /\ Room /\ c \notin ends /\ (c \notin known \/ \A i \in 1..Len(log) : log[i].id # Id(c) \/ log[i].low < Low(c))
           /\ log' = Append(log, [c |-> c, id |-> Id(c), at |-> 0, low |-> Low(c)]) /\ known' = known \cup {c}
           /\ UNCHANGED <<now, rest, way, read, low, top, late, proc, ends>>
\* A low mark of 0 is a bye.
Bye(c) == /\ MARKS /\ OWN /\ Room /\ c \notin ends /\ proc[c] > 1 /\ LET before == <<c, proc[c] - 1>> IN
             /\ BEHIND => \E i \in 1..Len(log) : log[i].id = Id(c)
             /\ \A i \in 1..Len(log) : log[i].id # before \/ log[i].low > 0
             /\ log' = Append(log, [c |-> c, id |-> before, at |-> 0, low |-> 0])
          /\ UNCHANGED <<now, known, rest, way, read, low, top, late, proc, ends>>
Call(c) == /\ (FIRST /\ MARKS => c \in known) /\ c \notin ends
           /\ now \notin rest[c] \cup way[c]
           /\ rest' = [rest EXCEPT ![c] = @ \cup {now}]
           /\ UNCHANGED <<now, known, way, log, read, low, top, late, proc, ends>>
Hand(c) == \E r \in rest[c] : /\ rest' = [rest EXCEPT ![c] = @ \ {r}] /\ way' = [way EXCEPT ![c] = @ \cup {r}]
                              /\ UNCHANGED <<now, known, log, read, low, top, late, proc, ends>>
\* The log takes a message; its answer comes, or is lost with the collector, who finds it on its spool again.
Stored(c) == \E r \in way[c] :
               /\ Room
               /\ log' = Append(log, [c |-> c, id |-> Id(c), at |-> r, low |-> Min({Low(c), IF LEAD THEN r ELSE r + 1})])
               /\ \/ way' = [way EXCEPT ![c] = @ \ {r}] /\ UNCHANGED rest
                  \/ way' = [way EXCEPT ![c] = @ \ {r}] /\ rest' = [rest EXCEPT ![c] = @ \cup {r}]
               /\ UNCHANGED <<now, known, read, low, top, late, proc, ends>>
\* Another process takes its place, by the same disk.
Crash(c) == /\ c \notin ends /\ (way[c] # {} \/ (L = 0 /\ proc[c] < P))
            /\ rest' = [rest EXCEPT ![c] = @ \cup way[c]] /\ way' = [way EXCEPT ![c] = {}]
            /\ proc' = [proc EXCEPT ![c] = IF L = 0 /\ @ < P THEN @ + 1 ELSE @]
            /\ UNCHANGED <<now, known, log, read, low, top, late, ends>>

\* A collector of which nothing rests ends with a bye of its own. That may come into the log, whether the collector hears of it
\* or not, or never; the next process has the disk.
Leave(c) == /\ MARKS /\ OWN /\ c <= L /\ c \in known \ ends /\ proc[c] < P /\ rest[c] = {} /\ way[c] = {}
            /\ ends' = ends \cup {c} /\ known' = IF DROP THEN known \ {c} ELSE known
            /\ UNCHANGED <<now, rest, way, log, read, low, top, late, proc>>
Left(c) == /\ c \in ends /\ ends' = ends \ {c} /\ proc' = [proc EXCEPT ![c] = @ + 1]
           /\ \/ /\ Room /\ log' = Append(log, [c |-> c, id |-> Id(c), at |-> 0, low |-> 0])
                 /\ known' \in {known, known \ {c}}
              \/ UNCHANGED <<log, known>>
           /\ UNCHANGED <<now, rest, way, read, low, top, late>>

\* The flow: of each process the greatest low mark; a repeat of what the log has already is no loss if it is late.
Watermark == LET holds == IF MARKS THEN {low[i] : i \in {x \in Ids : low[x] > 0}} ELSE {} IN Min({top} \cup holds)
Read == /\ read < Len(log) /\ read' = read + 1
        /\ LET m == log[read + 1]
               before == \E i \in 1..read : log[i].c = m.c /\ log[i].at = m.at
           IN /\ low' = [low EXCEPT ![m.id] = IF ~MARKS THEN @ ELSE IF m.low = 0 THEN 0 ELSE Max(@, m.low)]
            /\ top' = Max(top, m.at)
              /\ late' = (late \/ (m.at > 0 /\ ~before /\ m.at < Watermark))
        /\ UNCHANGED <<now, known, rest, way, log, proc, ends>>
Next == Pass \/ Read \/ \E c \in Cs : Mark(c) \/ Bye(c) \/ Call(c) \/ Hand(c) \/ Stored(c) \/ Crash(c) \/ Leave(c) \/ Left(c)
Spec == Init /\ [][Next]_vars

NothingIsLate == ~late
=============================================================================
