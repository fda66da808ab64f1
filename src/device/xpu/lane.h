/* Lanes of the XPU: see device/lane.h. */
#ifndef DK_DEVICE_XPU_LANE_H
#define DK_DEVICE_XPU_LANE_H

#include "device/lane.h"

DK_MUST_USE dk_status dk_xpu_lane_open(dk_device_lane **out, const char *name, dk_error *err);

#endif
