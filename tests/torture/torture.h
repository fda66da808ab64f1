/* Torture: the Nth fallible call of the library fails. The calls are replaced when the test is
   linked (-Wl,--wrap, see CMakeLists.txt), so the library itself knows nothing of this. */
#ifndef DK_TESTS_TORTURE_H
#define DK_TESTS_TORTURE_H

#include <stdbool.h>

/* The nth call from now fails (from 1); 0: none. */
void torture_arm(int nth);
/* No more failures; true when one happened. *what names the call ("open"). */
bool torture_disarm(const char **what);

#endif
